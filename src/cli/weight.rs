//! `teal weight SVC POOL=SHARE...`: sets the split by hand.

use http::Method;
use http::header::{HeaderMap, HeaderValue, IF_MATCH};

use super::client::{Client, path};
use super::failure::{Exit, Failure};
use super::output::Output;
use super::parse::{PoolShare, pool_share};
use super::text;
use crate::control::admin::wire::{Done, Ordered, Weights};

/// What `weight` is told.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    teal weight shop green=10%              the active pool gets the rest\n  \
    teal weight shop blue=50% green=50%")]
pub(super) struct Arguments {
    /// The service
    #[arg(value_name = "SVC")]
    service: String,
    /// Shares; if only the active pool is left out, it gets the rest
    #[arg(value_name = "POOL=SHARE", required = true, value_parser = pool_share)]
    shares: Vec<PoolShare>,
    /// Only if the service is still at this epoch (see `teal status`)
    #[arg(long, value_name = "N", env = "TEAL_WEIGHT_IF_EPOCH")]
    if_epoch: Option<u64>,
}

/// Sets the split; ends when every worker has it.
pub(super) async fn run(arguments: Arguments, client: &Client, output: Output<'_>) -> Result<Exit, Failure> {
    let Arguments { service, shares, if_epoch } = arguments;
    let order = Weights { weights: once_each(shares)? };
    let fields = if_epoch.map(|epoch| (IF_MATCH, entity_tag(epoch)));
    let fields = HeaderMap::from_iter(fields);
    let done: Done = client.send(Method::PUT, &path(&["services", &service, "weights"]), &order, fields).await?;
    output.show(&done, |done| text::done(&service, done))?;
    Ok(Exit::Done)
}

fn once_each(shares: Vec<PoolShare>) -> Result<Ordered<String>, Failure> {
    let mut weights = Ordered::default();
    for PoolShare { pool, share } in shares {
        if weights.find(&pool).is_some() {
            return Err(Failure::Usage(format!("pool `{pool}` is given twice")));
        }
        weights.0.push((pool, share.to_string()));
    }
    Ok(weights)
}

fn entity_tag(epoch: u64) -> HeaderValue {
    HeaderValue::from_str(&format!("\"{epoch}\"")).expect("quotes and digits are visible ASCII")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pool_is_given_once() {
        let shares = |texts: &[&str]| once_each(texts.iter().map(|text| pool_share(text).unwrap()).collect());
        let expected = Ordered(vec![("green".to_owned(), "10%".to_owned()), ("blue".to_owned(), "90%".to_owned())]);
        assert_eq!(shares(&["green=10%", "blue=90.00%"]), Ok(expected));
        let twice = Failure::Usage("pool `green` is given twice".to_owned());
        assert_eq!(shares(&["green=10%", "blue=80%", "green=10%"]), Err(twice));
    }

    #[test]
    fn an_entity_tag_is_quoted() {
        assert_eq!(entity_tag(42), "\"42\"");
    }
}
