//! Metrics: the exposition and what is counted.

mod application;
mod exposition;
mod families;
mod openmetrics;
mod scoreboard;
mod true_numbers;
