//! Which pool answers for which paths.

use serde_json::Value;

/// Pools by the beginnings of the paths that they answer for, the longest first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Routes(Vec<(String, String)>);

impl Routes {
    /// The routes that the setting `forward` describes: a pool's name, or a table of
    /// them by path. `None` where it is neither.
    pub(crate) fn from_setting(setting: &Value) -> Option<Self> {
        let mut routes = match setting {
            Value::String(pool) => vec![("/".to_owned(), pool.clone())],
            Value::Object(table) => table
                .iter()
                .map(|(path, pool)| Some((path.clone(), pool.as_str()?.to_owned())))
                .collect::<Option<_>>()?,
            _ => return None,
        };
        let is_route = |(path, pool): &(String, String)| path.starts_with('/') && !pool.is_empty();
        routes.sort_by_key(|(path, _)| std::cmp::Reverse(path.len()));
        (!routes.is_empty() && routes.iter().all(is_route)).then_some(Self(routes))
    }

    /// The pool that answers for a path: the one of the longest beginning that ends
    /// where a segment does.
    pub(super) fn pool(&self, path: &str) -> Option<&str> {
        let begins = |(route, _): &&(String, String)| is_within(path, route);
        let (_, pool) = self.0.iter().find(begins)?;
        Some(pool)
    }

    /// Every pool that something may be forwarded to.
    pub(super) fn pools(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|(_, pool)| pool.as_str())
    }
}

/// Whether a path is a route's own or lies below it: `/api` and `/api/` both have
/// `/api/shoes`, the first has `/api` as well, and neither has `/apis`.
fn is_within(path: &str, route: &str) -> bool {
    match path.strip_prefix(route) {
        Some(rest) => route.ends_with('/') || rest.is_empty() || rest.starts_with('/'),
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_longest_beginning_counts_and_ends_where_a_segment_does() {
        let setting = json!({ "/": "shop", "/api/": "api", "/api/v2": "next" });
        let routes = Routes::from_setting(&setting).unwrap();
        for (path, pool) in [
            ("/", "shop"),
            ("/api", "shop"),
            ("/apis/1", "shop"),
            ("/api/", "api"),
            ("/api/shoes", "api"),
            ("/api/v2", "next"),
            ("/api/v2/shoes", "next"),
            ("/api/v20", "api"),
        ] {
            assert_eq!(routes.pool(path), Some(pool), "{path}");
        }
        let part = Routes::from_setting(&json!({ "/api": "api" })).unwrap();
        assert_eq!(part.pool("/index.html"), None);
        assert_eq!(part.pool("*"), None);
    }

    #[test]
    fn a_name_alone_answers_for_everything() {
        let routes = Routes::from_setting(&json!("shop")).unwrap();
        assert_eq!(routes.pool("/any/thing"), Some("shop"));
        assert_eq!(routes.pools().collect::<Vec<_>>(), ["shop"]);
    }

    #[test]
    fn what_names_no_pool_or_no_path_is_no_route() {
        for setting in [
            json!(7),
            json!({}),
            json!(""),
            json!({ "/": 7 }),
            json!({ "api/": "api" }),
        ] {
            assert_eq!(Routes::from_setting(&setting), None, "{setting}");
        }
    }
}
