//! Workers with more rights than anybody has asked for.

use super::checked::{Config, Pool};

/// What to say of pools whose workers run as root because nobody said otherwise.
/// `root` is whether the supervisor does.
pub fn root_workers(config: &Config, root: bool) -> Option<String> {
    let all = |pool: &&Pool| root && pool.run_as.is_none();
    let pools: Vec<&str> = config
        .pools
        .iter()
        .filter(all)
        .map(|pool| pool.policy.name.as_str())
        .collect();
    let first = pools.first()?;
    Some(format!(
        "the workers of {} run as root, since prefork does and nothing says whom they run as: \
         set `user` in [pool.{first}]{}, or start prefork as another user",
        pools.join(", "),
        if pools.len() > 1 {
            " and the others"
        } else {
            ""
        },
    ))
}

#[cfg(test)]
mod tests {
    use super::super::{Host, Options, parse};
    use super::*;

    #[test]
    fn only_pools_without_a_user_under_root_are_named() {
        let mut host = Host::current(&Options::default()).unwrap();
        host.root = true;
        let text = "[pool.web]\nlisten = [\"127.0.0.1:0\"]\n\
            [pool.api]\nlisten = [\"127.0.0.2:0\"]\nuser = \"root\"\n\
            [pool.jobs]\nlisten = [\"127.0.0.3:0\"]\n";
        let config = parse(text, "prefork.toml", &host).unwrap();
        assert_eq!(root_workers(&config, false), None);
        let said = root_workers(&config, true).unwrap();
        assert!(
            said.starts_with("the workers of web, jobs run as root"),
            "{said}"
        );
        assert!(
            said.contains("`user` in [pool.web] and the others"),
            "{said}"
        );
    }
}
