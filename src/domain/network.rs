//! Sets of IP networks: who is believed, as configuration lists it.
//!
//! Invariant: an IPv4 address is one address however it is written: `::ffff:10.0.0.1` is in `10.0.0.0/8`.

use std::net::IpAddr;
use std::str::FromStr;

use ipnet::IpNet;

/// One network, or one address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network(IpNet);

/// Why a text is not a network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidNetwork {
    /// Neither an address nor a prefix.
    #[error("a network is an address or a prefix, such as 10.0.0.0/8 or 2001:db8::/32")]
    Form,
    /// `10.0.0.1/8`: one of the two is a slip.
    #[error("the address has bits behind its prefix: did you mean {0}?")]
    HostBits(IpNet),
}

impl Network {
    /// True if `ip` lies in it.
    pub fn contains(self, ip: IpAddr) -> bool {
        self.0.contains(&ip.to_canonical())
    }
}

impl FromStr for Network {
    type Err = InvalidNetwork;

    fn from_str(text: &str) -> Result<Network, InvalidNetwork> {
        if let Ok(ip) = text.parse::<IpAddr>() {
            return Ok(Network(IpNet::from(ip.to_canonical())));
        }
        // By std's parser, which does not take `010` for 10.
        let (ip, length) = text.split_once('/').ok_or(InvalidNetwork::Form)?;
        let digits = length.bytes().all(|byte| byte.is_ascii_digit());
        let length = length.parse().ok().filter(|_| digits).ok_or(InvalidNetwork::Form)?;
        let ip = ip.parse().map_err(|_| InvalidNetwork::Form)?;
        let network = IpNet::new(ip, length).map_err(|_| InvalidNetwork::Form)?;
        let trunc = network.trunc();
        if trunc.addr() != network.addr() {
            return Err(InvalidNetwork::HostBits(trunc));
        }
        // IPv4 in IPv6, `::ffff:10.0.0.0/104`: its addresses arrive as IPv4.
        match (network.addr().to_canonical(), network.prefix_len()) {
            (ip @ IpAddr::V4(_), length @ 96..) if network.addr().is_ipv6() => {
                IpNet::new(ip, length - 96).map(Network).map_err(|_| InvalidNetwork::Form)
            }
            _ => Ok(Network(network)),
        }
    }
}

impl std::fmt::Display for Network {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// Any number of networks; none by default.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Networks(Vec<Network>);

impl Networks {
    /// True if `ip` lies in one of them.
    pub fn contains(&self, ip: IpAddr) -> bool {
        self.0.iter().any(|network| network.contains(ip))
    }

    /// True if no address lies in them.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl FromIterator<Network> for Networks {
    fn from_iter<I: IntoIterator<Item = Network>>(networks: I) -> Networks {
        Networks(networks.into_iter().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_contain_their_addresses_however_written() {
        let table = [
            ("10.0.0.0/8", "10.255.0.1", true),
            ("10.0.0.0/8", "::ffff:10.0.0.1", true),
            ("10.0.0.0/8", "11.0.0.1", false),
            ("10.0.0.1", "10.0.0.1", true),
            ("10.0.0.1", "10.0.0.2", false),
            ("::ffff:10.0.0.1", "10.0.0.1", true),
            ("::ffff:10.0.0.0/104", "10.9.9.9", true),
            ("::ffff:10.0.0.0/104", "11.9.9.9", false),
            ("2001:db8::/32", "2001:db8:1::1", true),
            ("2001:db8::/32", "2001:db9::1", false),
            ("0.0.0.0/0", "8.8.8.8", true),
            ("0.0.0.0/0", "2001:db8::1", false),
            ("::/0", "2001:db8::1", true),
            ("::/0", "8.8.8.8", false),
        ];
        for (network, ip, inside) in table {
            let networks: Networks = [network.parse().unwrap()].into_iter().collect();
            assert_eq!(networks.contains(ip.parse().unwrap()), inside, "{ip} in {network}");
        }
        assert!(!Networks::default().contains("127.0.0.1".parse().unwrap()));
    }

    #[test]
    fn what_is_no_network_says_why() {
        for text in ["", "10.0.0.0/33", "10.0.0/8", "x/8", "10.0.0.0/", "::/129", "010.0.0.0/8", "10.0.0.0/+8"] {
            assert_eq!(text.parse::<Network>(), Err(InvalidNetwork::Form), "{text}");
        }
        let slip = "10.1.2.3/8".parse::<Network>().unwrap_err();
        assert_eq!(slip.to_string(), "the address has bits behind its prefix: did you mean 10.0.0.0/8?");
    }
}
