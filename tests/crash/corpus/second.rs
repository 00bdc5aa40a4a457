//! A Rust program with a C part: the argument says what goes wrong.
extern "C" {
    fn library_step(round: u32) -> u32;
    fn strlen(text: *const u8) -> usize;
}

extern "C" fn visit(index: usize) -> u32 {
    let table = [1u32, 2, 3];
    table[index]
}

#[inline(never)]
fn measure(text: *const u8) -> usize {
    unsafe { strlen(text) }
}

fn main() {
    let fault = std::env::args().nth(1).unwrap_or_default();
    println!("step {}", unsafe { library_step(3) });
    match fault.as_str() {
        "unwind" => println!("{}", visit(std::env::args().count() + 5)),
        "length" => println!("{}", measure(8 as *const u8)),
        _ => {}
    }
}
