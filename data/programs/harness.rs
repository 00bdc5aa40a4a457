//! The harness that reported impossible numbers, in Rust as the user's was; harness.c is the same.
//!
//! It declares the runtime's two functions without their arguments (Begin and End of a section),
//! so they divide what other calls left in the registers: other numbers in each run. One thread,
//! no input.

extern "C" {
    fn library_step(round: u32) -> u32;

    // The mistake. Both take two pointers (InstrProfiling.h of compiler-rt).
    fn __llvm_profile_get_num_data() -> u64;
    fn __llvm_profile_get_num_counters() -> u64;
}

fn main() {
    let mut sum = 0u32;
    for round in 0..300 {
        sum = sum.wrapping_add(unsafe { library_step(round) });
    }
    println!("checksum {sum}");
    unsafe {
        println!("data entries {}", __llvm_profile_get_num_data());
        println!("counters {}", __llvm_profile_get_num_counters());
    }
}
