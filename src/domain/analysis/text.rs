//! Numbers as people write them.
//!
//! Invariant: short, and never a rounded zero for something that happened.

/// `3,901`.
pub(super) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() * 4 / 3 + 1);
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A fraction as `9.0 %`, `0.08 %`, `0.1 %`, `20 %`, `0 %`.
pub(super) fn percent(fraction: f64) -> String {
    let percent = fraction * 100.0;
    let whole = (percent - percent.round()).abs() < 1e-9 && (percent >= 10.0 || percent == 0.0);
    match percent {
        p if whole => format!("{p:.0} %"),
        p if p >= 1.0 => format!("{p:.1} %"),
        p if p >= 0.01 => format!("{} %", format!("{p:.2}").trim_end_matches('0')),
        p => format!("{p:.4} %"),
    }
}

/// An e-value: `1.4`, `1,204`, `3.2e45`.
pub(super) fn evidence(value: f64) -> String {
    match value {
        v if v < 10.0 => format!("{v:.1}"),
        v if v < 1e12 => grouped(v.floor() as u64),
        v => format!("{v:.1e}"),
    }
}

/// Microseconds as `126.0 ms`, `0.35 ms`.
pub(super) fn milliseconds(micros: u64) -> String {
    let value = micros as f64 / 1_000.0;
    if value < 10.0 { format!("{value:.2} ms") } else { format!("{value:.1} ms") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_well() {
        let cases = [(0, "0"), (999, "999"), (3_901, "3,901"), (1_000_000, "1,000,000")];
        cases.iter().for_each(|&(number, text)| assert_eq!(grouped(number), text));
        let cases = [
            (0.0, "0 %"),
            (0.0898, "9.0 %"),
            (0.00077, "0.08 %"),
            (0.001, "0.1 %"),
            (0.2, "20 %"),
            (0.00001, "0.0010 %"),
            (1.0, "100 %"),
        ];
        cases.iter().for_each(|&(fraction, text)| assert_eq!(percent(fraction), text));
        let cases = [(1.0, "1.0"), (100.0, "100"), (1204.9, "1,204"), (3.2e45, "3.2e45")];
        cases.iter().for_each(|&(value, text)| assert_eq!(evidence(value), text));
        assert_eq!((milliseconds(126_000), milliseconds(350)), ("126.0 ms".to_owned(), "0.35 ms".to_owned()));
    }
}
