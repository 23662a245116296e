//! `prefork run`: the supervisor in the foreground.
