//! Ordinary faults of a Rust program: the first argument says which.
use std::collections::HashMap;

#[derive(Debug)]
struct Config {
    values: HashMap<String, String>,
}

impl Config {
    fn parse(text: &str) -> Config {
        let values = text
            .lines()
            .filter_map(|line| line.split_once('='))
            .map(|(key, value)| (key.trim().to_string(), value.trim().to_string()))
            .collect();
        Config { values }
    }
    #[inline(never)]
    fn port(&self) -> u16 {
        self.values.get("port").unwrap().parse().expect("a port")
    }
}

#[inline(never)]
fn read_raw(address: *const u32) -> u32 {
    unsafe { address.read_volatile() }
}

fn main() {
    let config = Config::parse("host = localhost\nworkers = 4\n");
    match std::env::args().nth(1).as_deref() {
        Some("raw") => println!("{}", read_raw(std::hint::black_box(std::ptr::null()))),
        _ => println!("listening on {}", config.port()),
    }
}
