//! Where the threads of a process were.

use prefork_api::{StackFrame, ThreadDump, ThreadStack};

use crate::sanitize::one_line;

/// A line for each thread, its frames below it, and what could not be found out.
pub(super) fn thread_dump(dump: &ThreadDump, indent: &str) -> String {
    let mut lines = Vec::new();
    for thread in &dump.threads {
        lines.push(header(thread));
        lines.extend(thread.frames.iter().map(frame));
    }
    if dump.further_threads > 0 {
        lines.push(format!("{} more threads", dump.further_threads));
    }
    lines.extend(dump.lacks.iter().map(|it| format!("not known: {it}")));
    let lines = lines.iter().map(|line| one_line(line));
    lines.map(|line| format!("{indent}{line}\n")).collect()
}

fn header(thread: &ThreadStack) -> String {
    let mut line = format!(
        "thread {} ({}): state {}",
        thread.tid, thread.name, thread.state
    );
    if thread.tid != thread.pid {
        line.push_str(&format!(", of process {}", thread.pid));
    }
    if let Some(call) = &thread.syscall {
        line.push_str(&format!(", system call {call}"));
    }
    if let Some(wchan) = &thread.wchan {
        line.push_str(&format!(", wchan {wchan}"));
    }
    line
}

fn frame(frame: &StackFrame) -> String {
    let mut line = format!(
        "  at {}",
        frame.function.as_deref().unwrap_or(&frame.address)
    );
    if let Some(source) = &frame.source {
        line.push_str(&format!(" ({source})"));
    } else if let Some(module) = &frame.module {
        line.push_str(&format!(" [{module}]"));
    }
    line
}
