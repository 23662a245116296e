//! What `GET /v1/requests` asks for.

use prefork_api::ErrorCode;

use super::answer::Rejection;
use crate::handle::Wanted;

/// Reads a query string such as `pool=web&slot=0&older_than_ms=2000`.
pub(super) fn parse(query: &str) -> Result<Wanted, Rejection> {
    let mut wanted = Wanted::default();
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let usage = || {
            let known = "pool=NAME, slot=NUMBER and older_than_ms=NUMBER";
            let message = format!("`{pair}` is none of the parameters {known}");
            Rejection::new(ErrorCode::Usage, message)
        };
        match pair.split_once('=').ok_or_else(usage)? {
            ("pool", name) => wanted.pool = Some(name.to_owned()),
            ("slot", slot) => wanted.slot = Some(slot.parse().map_err(|_| usage())?),
            ("older_than_ms", age) => wanted.older_than_ms = age.parse().map_err(|_| usage())?,
            _ => return Err(usage()),
        }
    }
    if wanted.slot.is_some() && wanted.pool.is_none() {
        let message = "`slot` says which one of a pool: say `pool`, too";
        return Err(Rejection::new(ErrorCode::Usage, message));
    }
    Ok(wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wanted_is_read() {
        assert_eq!(parse("").unwrap(), Wanted::default());
        let wanted = parse("pool=web&slot=3&older_than_ms=2000").unwrap();
        assert!(wanted.concerns("web", 3));
        assert!(!wanted.concerns("web", 4) && !wanted.concerns("api", 3));
        assert_eq!(wanted.older_than_ms, 2000);
        assert!(parse("pool=web").unwrap().concerns("web", 7));
    }

    #[test]
    fn what_is_not_known_is_said() {
        for query in [
            "slot=1",
            "pool=web&slot=x",
            "older_than_ms=-1",
            "old=1",
            "pool",
        ] {
            let rejection = parse(query).unwrap_err();
            assert_eq!(rejection.error.code, ErrorCode::Usage, "{query}");
        }
    }
}
