//! The program under investigation in Rust; main.c is the same in C and prints the same line.
//!
//! With `--cfg allocator="mimalloc"` ("jemalloc", "lab") its memory comes from that
//! allocator, as in a real project; with "none" it calls the library. With `--cfg never_free`
//! that allocator is wrapped in one that frees nothing. With `--cfg explicit` it writes its profile
//! before it ends, too; with `--cfg rich` there are more values than the profile's writer holds
//! back. One thread, fixed sizes, no input: each run does the same.

use std::hint::black_box;
use std::ptr;

const ROUNDS: u32 = 300;
const SIZE: usize = 256;

type Operation = fn(u32, u8) -> u32;

fn add(sum: u32, byte: u8) -> u32 {
    sum.wrapping_add(u32::from(byte))
}

fn mix(sum: u32, byte: u8) -> u32 {
    (sum ^ u32::from(byte)).wrapping_mul(17)
}

#[cfg(not(allocator = "none"))]
mod work {
    use std::alloc::{GlobalAlloc, Layout};
    use std::ffi::c_void;

    const SLOTS: usize = 16;
    const ALIGNMENT: usize = 16; // what malloc promises, for a block at least that big

    extern "C" {
        #[cfg_attr(allocator = "lab", link_name = "lab_malloc")]
        #[cfg_attr(allocator = "mimalloc", link_name = "mi_malloc")]
        #[cfg_attr(allocator = "jemalloc", link_name = "je_malloc")]
        fn c_malloc(size: usize) -> *mut c_void;

        #[cfg_attr(allocator = "lab", link_name = "lab_aligned_alloc")]
        #[cfg_attr(allocator = "mimalloc", link_name = "mi_aligned_alloc")]
        #[cfg_attr(allocator = "jemalloc", link_name = "je_aligned_alloc")]
        fn c_aligned_alloc(alignment: usize, size: usize) -> *mut c_void;

        #[cfg_attr(allocator = "lab", link_name = "lab_realloc")]
        #[cfg_attr(allocator = "mimalloc", link_name = "mi_realloc")]
        #[cfg_attr(allocator = "jemalloc", link_name = "je_realloc")]
        fn c_realloc(memory: *mut c_void, size: usize) -> *mut c_void;

        #[cfg_attr(allocator = "lab", link_name = "lab_free")]
        #[cfg_attr(allocator = "mimalloc", link_name = "mi_free")]
        #[cfg_attr(allocator = "jemalloc", link_name = "je_free")]
        fn c_free(memory: *mut c_void);
    }

    struct Allocator;

    #[cfg(not(never_free))]
    #[global_allocator]
    static ALLOCATOR: Allocator = Allocator;

    #[cfg(never_free)]
    #[global_allocator]
    static ALLOCATOR: NeverFree = NeverFree(Allocator);

    /// What is resized moves, by the trait's own `realloc`.
    #[cfg(never_free)]
    struct NeverFree(Allocator);

    #[cfg(never_free)]
    unsafe impl GlobalAlloc for NeverFree {
        unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
            self.0.alloc(layout)
        }

        unsafe fn dealloc(&self, _: *mut u8, _: Layout) {}
    }

    fn plain(alignment: usize, size: usize) -> bool {
        alignment <= ALIGNMENT && alignment <= size
    }

    unsafe impl GlobalAlloc for Allocator {
        unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
            if plain(layout.align(), layout.size()) {
                return c_malloc(layout.size()).cast();
            }
            // C11 wants a size that is a multiple of the alignment.
            c_aligned_alloc(layout.align(), layout.pad_to_align().size()).cast()
        }

        unsafe fn dealloc(&self, memory: *mut u8, _: Layout) {
            c_free(memory.cast());
        }

        unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
            if plain(layout.align(), layout.size().min(size)) {
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

    #[derive(Default)]
    pub struct Work {
        slots: [Vec<u8>; SLOTS],
    }

    impl Work {
        /// Replaces one of SLOTS blocks by a new one, every third time made twice as big.
        pub fn step(&mut self, round: u32) -> u32 {
            let slot = &mut self.slots[round as usize * 5 % SLOTS];
            let size = 1 + round as usize * 7 % super::SIZE;
            *slot = vec![(round & 0x7f) as u8; size];
            if round % 3 == 0 {
                slot.reserve_exact(size);
                slot.resize(2 * size, 1);
            }
            u32::from(slot[0]) + u32::from(slot[slot.len() - 1])
        }
    }
}

#[cfg(allocator = "none")]
mod work {
    extern "C" {
        fn library_step(round: u32) -> u32;
    }

    #[derive(Default)]
    pub struct Work;

    impl Work {
        pub fn step(&mut self, round: u32) -> u32 {
            unsafe { library_step(round) }
        }
    }
}

#[cfg(explicit)]
extern "C" {
    fn __llvm_profile_write_file() -> i32; // of the profile runtime
}

#[cfg(rich)]
mod rich {
    use super::{black_box, ptr, SIZE};

    /// One value site in each of 64 functions: a copy of a size known at run time.
    #[inline(never)]
    fn copy<const N: u8>(bytes: &mut [u8; 2 * SIZE], size: usize) {
        let start = bytes.as_mut_ptr();
        unsafe { ptr::copy_nonoverlapping(start.add(SIZE), start, size) };
        bytes[0] = bytes[0].wrapping_add(N);
    }

    macro_rules! eight {
        ($bytes:ident $size:ident $($n:literal)*) => {$(
            copy::<$n>($bytes, $size);
            copy::<{ $n + 1 }>($bytes, $size);
            copy::<{ $n + 2 }>($bytes, $size);
            copy::<{ $n + 3 }>($bytes, $size);
            copy::<{ $n + 4 }>($bytes, $size);
            copy::<{ $n + 5 }>($bytes, $size);
            copy::<{ $n + 6 }>($bytes, $size);
            copy::<{ $n + 7 }>($bytes, $size);
        )*};
    }

    pub fn copy_all() {
        let bytes = &mut [0; 2 * SIZE];
        for sizes in 1..32 {
            let size = black_box(sizes);
            eight!(bytes size 0 8 16 24 32 40 48 56);
        }
    }
}

fn main() {
    #[cfg(rich)]
    rich::copy_all();
    let operations: [Operation; 2] = black_box([add, mix]); // so that the calls stay indirect
    let (mut from, mut to) = ([0u8; SIZE], [0u8; SIZE]);
    let mut work = work::Work::default();
    let mut sum = 1u32;
    for round in 0..ROUNDS {
        let size = 1 + round as usize * 11 % SIZE;
        // Value sites: memory operations of a size known at run time.
        unsafe {
            ptr::write_bytes(from.as_mut_ptr(), (round & 0x7f) as u8, size);
            ptr::copy_nonoverlapping(from.as_ptr(), to.as_mut_ptr(), size);
        }
        sum = operations[round as usize % 2](sum, to[size - 1]);
        sum = sum.wrapping_add(work.step(round));
    }
    println!("checksum {sum}");
    #[cfg(explicit)]
    unsafe {
        __llvm_profile_write_file();
    }
}
