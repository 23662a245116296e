//! A configuration of which some pools are taken and the others stay as they are in
//! force.

use super::checked::{Config, Pool};
use super::forward::targets;
use super::listen::clash;

/// The configuration in force with those pools of `new` that are `wanted`: they come, go
/// and change, everything else stays.
///
/// # Errors
///
/// Why the two cannot be put together, in words.
pub fn select(
    in_force: &Config,
    new: Config,
    wanted: impl Fn(&str) -> bool,
) -> Result<Config, String> {
    let mut pools = Vec::new();
    let mut taken: Vec<Pool> = new.pools;
    taken.retain(|pool| wanted(&pool.policy.name));
    for pool in &in_force.pools {
        let name = &pool.policy.name;
        let place = taken.iter().position(|it| it.policy.name == *name);
        match place {
            Some(place) => pools.push(taken.remove(place)),
            None if wanted(name) => {}
            None => pools.push(pool.clone()),
        }
    }
    pools.append(&mut taken);
    go_together(&pools)?;
    Ok(Config {
        pools,
        ..in_force.clone()
    })
}

/// The checks of a whole file that are about more than one pool.
fn go_together(pools: &[Pool]) -> Result<(), String> {
    let advice = "reload both, or all of it";
    if pools.is_empty() {
        return Err("no pool would be left; `prefork stop` ends everything".to_owned());
    }
    for (index, pool) in pools.iter().enumerate() {
        let ours = &pool.policy.name;
        for other in &pools[index + 1..] {
            let theirs = &other.policy.name;
            let clashes = |it: &&_| other.listen.iter().any(|there| clash(it, there));
            if let Some(listen) = pool.listen.iter().find(clashes) {
                let listener = &listen.name;
                return Err(format!(
                    "the listener {listener} would be of pool {ours} and of pool {theirs}: {advice}"
                ));
            }
        }
        for target in targets(&pool.app).filter(|_| pool.is_front()) {
            let behind = pools.iter().find(|it| it.policy.name == target);
            if !behind.is_some_and(Pool::is_behind) {
                return Err(format!(
                    "pool {ours} would forward to {target}, which would not take its requests: \
                     {advice}"
                ));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::tests::valid;
    use super::*;

    const OLD: &str = "[pool.web]\nlisten = [\"127.0.0.1:8001\"]\n\
        [pool.api]\nlisten = [\"127.0.0.1:8002\"]\n";

    fn selected(new: &str, names: &[&str]) -> Result<Vec<(String, u32)>, String> {
        let config = select(&valid(OLD), valid(new), |name| names.contains(&name))?;
        let pools = config.pools.into_iter();
        Ok(pools
            .map(|pool| (pool.policy.name, pool.policy.workers))
            .collect())
    }

    #[test]
    fn only_what_is_wanted_comes_goes_and_changes() {
        let new = "[pool.web]\nworkers = 7\nlisten = [\"127.0.0.1:8001\"]\n\
            [pool.new]\nworkers = 3\nlisten = [\"127.0.0.1:8003\"]\n";
        let one = valid(OLD).pools[0].policy.workers;
        let named = |name: &str, workers| (name.to_owned(), workers);
        assert_eq!(
            selected(new, &["web"]),
            Ok(vec![named("web", 7), named("api", one)])
        );
        assert_eq!(
            selected(new, &["api", "new"]),
            Ok(vec![named("web", one), named("new", 3)])
        );
    }

    #[test]
    fn what_does_not_go_together_is_refused() {
        let swapped = "[pool.web]\nlisten = [\"127.0.0.1:8002\"]\n\
            [pool.api]\nlisten = [\"127.0.0.1:8001\"]\n";
        let why = selected(swapped, &["web"]).unwrap_err();
        assert!(why.contains("of pool web and of pool api"), "{why}");
        assert!(selected(swapped, &["web", "api"]).is_ok());
        let front = "[pool.web]\nlisten = [\"127.0.0.1:8001\"]\napp.forward = \"shop\"\n\
            [pool.shop]\nprogram = [\"sh\", \"-c\", \"serve {socket}\"]\n[pool.shop.adapter]\n";
        let why = selected(front, &["web"]).unwrap_err();
        assert!(why.contains("forward to shop"), "{why}");
        assert!(selected(front, &["web", "shop"]).is_ok());
        let none = "[pool.other]\nlisten = [\"127.0.0.1:8004\"]\n";
        assert!(selected(none, &["web", "api"]).is_err());
    }
}
