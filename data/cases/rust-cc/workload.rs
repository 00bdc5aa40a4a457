//! A program to measure: decodes binary event records to trees and writes them as JSON, as
//! evtx_dump does. `workload SEED RECORDS ROUNDS` prints the size of the log, a checksum, and the
//! seconds of the fastest round.
//!
//! With `--cfg allocator="mimalloc"` ("jemalloc") its memory comes from that allocator; with
//! "none" from the system's, and the C part is the library, called for each record. The same
//! arguments give the same work.

use std::collections::BTreeMap;
use std::env;
use std::fmt::Write;
use std::time::Instant;

#[cfg(not(allocator = "none"))]
mod part {
    use std::alloc::{GlobalAlloc, Layout};
    use std::ffi::c_void;

    extern "C" {
        #[cfg_attr(allocator = "mimalloc", link_name = "mi_aligned_alloc")]
        #[cfg_attr(allocator = "jemalloc", link_name = "je_aligned_alloc")]
        fn c_aligned_alloc(alignment: usize, size: usize) -> *mut c_void;

        #[cfg_attr(allocator = "mimalloc", link_name = "mi_malloc")]
        #[cfg_attr(allocator = "jemalloc", link_name = "je_malloc")]
        fn c_malloc(size: usize) -> *mut c_void;

        #[cfg_attr(allocator = "mimalloc", link_name = "mi_realloc")]
        #[cfg_attr(allocator = "jemalloc", link_name = "je_realloc")]
        fn c_realloc(memory: *mut c_void, size: usize) -> *mut c_void;

        #[cfg_attr(allocator = "mimalloc", link_name = "mi_free")]
        #[cfg_attr(allocator = "jemalloc", link_name = "je_free")]
        fn c_free(memory: *mut c_void);
    }

    const ALIGNMENT: usize = 8; // what both allocators give a block of any size

    struct Allocator;

    #[global_allocator]
    static ALLOCATOR: Allocator = Allocator;

    unsafe impl GlobalAlloc for Allocator {
        unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
            if layout.align() <= ALIGNMENT {
                return c_malloc(layout.size()).cast();
            }
            c_aligned_alloc(layout.align(), layout.pad_to_align().size()).cast()
        }

        unsafe fn dealloc(&self, memory: *mut u8, _: Layout) {
            c_free(memory.cast());
        }

        unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
            if layout.align() <= ALIGNMENT {
                return c_realloc(memory.cast(), size).cast();
            }
            let moved = self.alloc(Layout::from_size_align_unchecked(size, layout.align()));
            if !moved.is_null() {
                moved.copy_from_nonoverlapping(memory, layout.size().min(size));
                self.dealloc(memory, layout);
            }
            moved
        }
    }

    pub fn step(_: u32) -> u32 {
        0
    }
}

#[cfg(allocator = "none")]
mod part {
    extern "C" {
        fn library_step(round: u32) -> u32;
    }

    pub fn step(round: u32) -> u32 {
        unsafe { library_step(round) }
    }
}

/// Knuth's 64-bit linear congruential generator (MMIX).
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u32) -> u32 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 32) as u32) % limit
    }
}

enum Value {
    Nothing,
    Number(i64),
    Text(String),
    List(Vec<Value>),
    Fields(BTreeMap<String, Value>),
}

const NAMES: [&str; 12] = [
    "EventID",
    "Level",
    "Task",
    "Keywords",
    "TimeCreated",
    "Computer",
    "Channel",
    "UserID",
    "ProcessID",
    "ThreadID",
    "Message",
    "Opcode",
];
const WORDS: [&str; 10] = [
    "session",
    "zurück",
    "logon \"remote\"",
    "kernel",
    "C:\\Windows\\System32",
    "日本",
    "denied",
    "service\tstarted",
    "policy",
    "été",
];

/// Writes a record: a tag for each value, then its bytes. Few kinds are frequent, as in logs.
fn encode(random: &mut Random, depth: u32, to: &mut Vec<u8>) {
    let kind = random.below(100);
    if depth == 0 || (depth < 4 && kind < 22) {
        let fields = 3 + random.below(6) as u8;
        to.extend([4, fields]);
        for _ in 0..fields {
            to.push(random.below(NAMES.len() as u32) as u8);
            encode(random, depth + 1, to);
        }
    } else if kind < 30 {
        let items = random.below(5) as u8;
        to.extend([3, items]);
        for _ in 0..items {
            encode(random, 4, to);
        }
    } else if kind < 65 {
        let words = 1 + random.below(4) as u8;
        to.extend([2, words]);
        to.extend((0..words).map(|_| random.below(WORDS.len() as u32) as u8));
    } else if kind < 97 {
        to.push(1);
        // Small numbers are short: seven bits in a byte, the high bit says that more follow.
        let bits = 3 + random.below(28);
        let mut number = random.below(1 << bits);
        while number >= 0x80 {
            to.push(number as u8 | 0x80);
            number >>= 7;
        }
        to.push(number as u8);
    } else {
        to.push(0);
    }
}

fn byte(from: &mut &[u8]) -> u8 {
    let (first, rest) = from.split_first().expect("a whole record");
    *from = rest;
    *first
}

fn decode(from: &mut &[u8]) -> Value {
    match byte(from) {
        0 => Value::Nothing,
        1 => {
            let (mut number, mut shift) = (0i64, 0);
            loop {
                let next = byte(from);
                number |= i64::from(next & 0x7f) << shift;
                if next < 0x80 {
                    return Value::Number(number);
                }
                shift += 7;
            }
        }
        2 => {
            let words = byte(from);
            let texts: Vec<String> = (0..words)
                .map(|_| WORDS[byte(from) as usize].to_string())
                .collect();
            Value::Text(texts.join(" "))
        }
        3 => Value::List((0..byte(from)).map(|_| decode(from)).collect()),
        _ => Value::Fields(
            (0..byte(from))
                .map(|_| (NAMES[byte(from) as usize].to_string(), decode(from)))
                .collect(),
        ),
    }
}

fn write_text(text: &str, to: &mut String) {
    to.push('"');
    for letter in text.chars() {
        match letter {
            '"' | '\\' => to.extend(['\\', letter]),
            '\t' => to.push_str("\\t"),
            _ => to.push(letter),
        }
    }
    to.push('"');
}

fn write_json(value: &Value, to: &mut String) {
    match value {
        Value::Nothing => to.push_str("null"),
        Value::Number(number) => write!(to, "{number}").expect("a string takes all"),
        Value::Text(text) => write_text(text, to),
        Value::List(items) => {
            to.push('[');
            for (n, item) in items.iter().enumerate() {
                to.push_str(if n > 0 { "," } else { "" });
                write_json(item, to);
            }
            to.push(']');
        }
        Value::Fields(fields) => {
            to.push('{');
            for (n, (name, field)) in fields.iter().enumerate() {
                to.push_str(if n > 0 { "," } else { "" });
                write_text(name, to);
                to.push(':');
                write_json(field, to);
            }
            to.push('}');
        }
    }
}

/// Decodes the whole log and writes it as JSON; returns a checksum of that.
fn round(log: &[u8], records: u64) -> u64 {
    let (mut rest, mut sum, mut kept) = (log, 0xcbf2_9ce4_8422_2325u64, Vec::new());
    for number in 0..records {
        let value = decode(&mut rest);
        let mut json = String::new();
        write_json(&value, &mut json);
        for byte in json.bytes() {
            sum = (sum ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3); // FNV-1a
        }
        sum = sum.wrapping_add(u64::from(part::step(number as u32)));
        kept.push((value, json)); // so that memory is given back out of order
        if kept.len() == 64 {
            kept.swap_remove(number as usize * 7 % 64);
        }
    }
    sum
}

fn main() {
    let mut numbers = env::args()
        .skip(1)
        .map(|word| word.parse().expect("a number"));
    let mut next = |usual| numbers.next().unwrap_or(usual);
    let (seed, records, rounds) = (next(1), next(100), next(1));
    let mut random = Random(seed);
    let mut log = Vec::new();
    for _ in 0..records {
        encode(&mut random, 0, &mut log);
    }
    let (mut sum, mut fastest) = (0u64, f64::INFINITY);
    for _ in 0..rounds {
        let start = Instant::now();
        sum = sum.rotate_left(1) ^ round(&log, records);
        fastest = fastest.min(start.elapsed().as_secs_f64());
    }
    println!(
        "bytes {}\nchecksum {sum:016x}\nseconds {fastest:.6}",
        log.len()
    );
}
