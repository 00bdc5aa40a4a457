//! Rust programs that end badly: the name of what happens is the first argument.

use std::hint::black_box;

struct Item {
    count: u64,
    next: Option<Box<Item>>,
}

#[inline(never)]
fn total(item: &Item) -> u64 {
    item.count + item.next.as_deref().map_or(0, total)
}

#[inline(never)]
fn deep(n: u64) -> u64 {
    let room = black_box([n; 32]);
    if n == u64::MAX { 0 } else { deep(n + 1) + room[(n % 32) as usize] }
}

#[inline(never)]
fn index(counts: &[u64], at: usize) -> u64 {
    counts[at]
}

fn main() {
    let what = std::env::args().nth(1).unwrap_or_default();
    let counts = vec![1, 2, 3];
    let sum = match what.as_str() {
        "overflow" => deep(0),
        "panic" => index(&counts, black_box(7)),
        "null" => total(unsafe { &*black_box(std::ptr::null::<Item>()) }),
        "thread" => std::thread::Builder::new()
            .name("worker".into())
            .spawn(|| deep(0))
            .unwrap()
            .join()
            .unwrap(),
        _ => total(&Item { count: 3, next: None }),
    };
    println!("{sum}");
}
