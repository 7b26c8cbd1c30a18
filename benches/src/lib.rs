//! Benchmarks of Sotto; each names the limit that it is held against.
