//! Where a process was, in one line for the log.

use prefork_api::{ThreadDump, ThreadStack};

/// Functions that are named in a line. A certificate has all of them.
const MOST_NAMED: usize = 12;

/// Where the first thread was: `in clock_nanosleep (wchan hrtimer_nanosleep): at nanosleep in
/// std::thread::sleep in shop::checkout`. What it lacks, where that is all.
pub(in crate::reactor) fn whereabouts(dump: &ThreadDump) -> String {
    let first = dump.threads.first();
    let where_it_is = first.map_or_else(String::new, thread);
    if first.is_some_and(|it| !it.frames.is_empty()) {
        return where_it_is;
    }
    // Without frames it says why.
    let parts = [where_it_is, format!("not known: {}", dump.lacks.join("; "))];
    let parts = parts.iter().filter(|part| !part.is_empty());
    parts.map(String::as_str).collect::<Vec<_>>().join("; ")
}

fn thread(thread: &ThreadStack) -> String {
    let mut line = match (&thread.syscall, thread.state.as_str()) {
        (Some(call), _) => format!("in {call}"),
        (None, "R") => "running".to_owned(),
        (None, "T" | "t") => "stopped".to_owned(),
        (None, state) => format!("in state {state}"),
    };
    if let Some(wchan) = &thread.wchan {
        line.push_str(&format!(" (wchan {wchan})"));
    }
    let names = thread.frames.iter().filter_map(|it| it.function.as_deref());
    let names: Vec<&str> = names.take(MOST_NAMED).collect();
    if !names.is_empty() {
        line.push_str(&format!(": at {}", names.join(" in ")));
    }
    line
}

#[cfg(test)]
mod tests {
    use prefork_api::StackFrame;

    use super::*;

    #[test]
    fn a_line_names_the_functions_or_says_why_it_does_not() {
        let frame = |name: &str| StackFrame {
            function: Some(name.to_owned()),
            ..StackFrame::default()
        };
        let mut dump = ThreadDump {
            threads: vec![ThreadStack {
                state: "S".to_owned(),
                wchan: Some("hrtimer_nanosleep".to_owned()),
                syscall: Some("clock_nanosleep".to_owned()),
                frames: vec![frame("sleep"), frame("shop::checkout")],
                ..ThreadStack::default()
            }],
            ..ThreadDump::default()
        };
        assert_eq!(
            whereabouts(&dump),
            "in clock_nanosleep (wchan hrtimer_nanosleep): at sleep in shop::checkout"
        );
        dump.threads[0] = ThreadStack {
            state: "R".to_owned(),
            ..ThreadStack::default()
        };
        dump.lacks = vec!["frames of 7: it has ended".to_owned()];
        let line = whereabouts(&dump);
        assert_eq!(line, "running; not known: frames of 7: it has ended");
        dump.threads.clear();
        assert_eq!(whereabouts(&dump), "not known: frames of 7: it has ended");
    }
}
