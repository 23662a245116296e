//! What operators want: finds whom it concerns and hands it on.

use crate::Fleet;
use crate::interface::{Ask, Command, JobId, PoolId, Refusal, Time};
use crate::state::leave::How;
use crate::state::slot::SlotId;
use crate::step::stop::STOPPING;

impl Fleet {
    /// Takes a command. Its job ends once, now or later.
    pub(crate) fn command(&mut self, now: Time, job: JobId, command: Command) {
        if let Command::Stop { now: at_once } = command {
            self.stop(now, job, at_once);
            return;
        }
        if !self.starts_processes() {
            self.finish(job, Err(Refusal::failed(STOPPING)));
            return;
        }
        if let Err(refusal) = self.carry_out(now, job, command) {
            self.finish(job, Err(refusal));
        }
    }

    fn carry_out(&mut self, now: Time, job: JobId, command: Command) -> Result<(), Refusal> {
        let is_for_any_time = matches!(
            command,
            Command::Kill { .. } | Command::Promote | Command::Abort
        );
        if !is_for_any_time {
            self.refuse_during_reload()?;
        }
        match command {
            Command::Scale { pool, workers } => {
                let pool = self.pool_named(&pool)?;
                self.scale(now, job, pool, workers)
            }
            Command::ScaleAsConfigured { pool } => {
                let pool = self.pool_named(&pool)?;
                let workers = self.policy(pool).workers;
                self.scale(now, job, pool, workers)
            }
            Command::ScaleBy { pool: None, by } => self.scale_first_by(now, job, by),
            Command::ScaleBy {
                pool: Some(pool),
                by,
            } => {
                let pool = self.pool_named(&pool)?;
                self.scale_by(now, job, pool, by)
            }
            Command::Restart { pool, slot: None } => {
                let pool = self.pool_named(&pool)?;
                self.restart(now, job, pool, None)
            }
            Command::Restart {
                pool,
                slot: Some(slot),
            } => {
                let id = self.slot_named(&pool, slot)?;
                self.restart(now, job, id.pool, Some(slot))
            }
            Command::Pause { pool, slot } => {
                let id = self.slot_named(&pool, slot)?;
                self.ask(job, id, Ask::Pause)
            }
            Command::Resume { pool, slot } => {
                let id = self.slot_named(&pool, slot)?;
                self.ask(job, id, Ask::Resume)
            }
            Command::Drain { pool, slot } => {
                let id = self.slot_named(&pool, slot)?;
                self.remove(now, job, id, How::Drain)
            }
            Command::Kill { pool, slot } => {
                let id = self.slot_alive(&pool, slot)?;
                self.remove(now, job, id, How::Kill)
            }
            Command::Reload(plan) => self.reload(now, job, plan),
            Command::Promote => self.promote(now, job),
            Command::Abort => self.abort(now, job),
            Command::Stop { now: at_once } => {
                self.stop(now, job, at_once);
                Ok(())
            }
        }
    }

    fn pool_named(&self, name: &str) -> Result<PoolId, Refusal> {
        if let Some(pool) = self.pools.named(name) {
            return Ok(pool.id);
        }
        let names: Vec<&str> = self
            .pools
            .staying()
            .map(|pool| pool.policy.name.as_str())
            .collect();
        Err(Refusal::NotFound(format!(
            "there is no pool {name}; there is {}",
            names.join(", ")
        )))
    }

    /// A slot that is to have a process.
    fn slot_named(&self, pool: &str, index: u32) -> Result<SlotId, Refusal> {
        let id = self.pool_named(pool)?;
        let desired = self.pools[id].desired;
        if index < desired {
            return Ok(SlotId { pool: id, index });
        }
        Err(Refusal::NotFound(format!(
            "there is no slot {pool}/{index}; {pool} has slots 0 to {}",
            desired.saturating_sub(1)
        )))
    }

    /// A slot that is to have a process, or still has one. A pool on its way
    /// out has such slots, too, beside one of its name that came later.
    fn slot_alive(&self, pool: &str, index: u32) -> Result<SlotId, Refusal> {
        let named = self.slot_named(pool, index);
        if named.is_ok() {
            return named;
        }
        let mut pools = self.pools.iter().filter(|it| it.policy.name == pool);
        pools
            .find_map(|pool| {
                let slot = pool.slots.get(index as usize)?;
                (!slot.leaving.is_empty()).then_some(slot.id)
            })
            .map_or(named, Ok)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::driver::{Driver, policy};

    #[test]
    fn what_does_not_exist_is_named_with_what_does() {
        let pools = vec![policy("web", 2), policy("api", 1)];
        let mut driver = Driver::start_pools(1, pools);
        let pool = || "wbe".to_owned();
        for command in [
            Command::Scale {
                pool: pool(),
                workers: 1,
            },
            Command::Restart {
                pool: pool(),
                slot: None,
            },
            Command::Kill {
                pool: pool(),
                slot: 0,
            },
        ] {
            let job = driver.command(command);
            let why = "there is no pool wbe; there is web, api".to_owned();
            assert_eq!(driver.result(job), Some(&Err(Refusal::NotFound(why))));
        }
        let (pool, slot) = ("web".to_owned(), 2);
        let job = driver.command(Command::Pause { pool, slot });
        let why = "there is no slot web/2; web has slots 0 to 1".to_owned();
        assert_eq!(driver.result(job), Some(&Err(Refusal::NotFound(why))));
    }
}
