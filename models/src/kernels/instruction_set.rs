//! What kernels are computed with, chosen at run time.

/// A family of vector instructions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InstructionSet {
    /// 32 registers of 16 numbers.
    #[cfg(target_arch = "x86_64")]
    Avx512,
    /// 16 registers of 8 numbers, with fused multiply-add.
    #[cfg(target_arch = "x86_64")]
    Avx2,
    /// Plain Rust, which the compiler turns into what every processor of the architecture has.
    Portable,
}

impl InstructionSet {
    /// Those that this processor has, the best first.
    pub fn available() -> impl Iterator<Item = Self> {
        #[cfg(target_arch = "x86_64")]
        let vector = [
            is_x86_feature_detected!("avx512f").then_some(Self::Avx512),
            (is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma")).then_some(Self::Avx2),
        ];
        #[cfg(not(target_arch = "x86_64"))]
        let vector = [None::<Self>; 0];
        vector.into_iter().flatten().chain([Self::Portable])
    }

    /// The best that this processor has.
    pub fn best() -> Self {
        Self::available().next().unwrap_or(Self::Portable)
    }
}

/// Declares a function of slices whose body is plain Rust, compiled once for each instruction set; its first argument
/// says which one runs. The body has no fused multiply-add and adds up in an order of its own (`Lanes`), so that all of them
/// give the same bits.
macro_rules! vectorised {
    ($(
        $(#[$meta:meta])*
        $visibility:vis fn $name:ident $(<$generic:ident: $bound:path>)? ($($arg:ident: $type:ty),* $(,)?) $(-> $result:ty)?
        $body:block
    )*) => {$(
        $(#[$meta])*
        $visibility fn $name $(<$generic: $bound>)? (
            set: $crate::kernels::instruction_set::InstructionSet,
            $($arg: $type),*
        ) $(-> $result)? {
            #[inline(always)]
            fn portable $(<$generic: $bound>)? ($($arg: $type),*) $(-> $result)? $body

            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx512f")]
            fn avx512 $(<$generic: $bound>)? ($($arg: $type),*) $(-> $result)? {
                portable($($arg),*)
            }

            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,fma")]
            fn avx2 $(<$generic: $bound>)? ($($arg: $type),*) $(-> $result)? {
                portable($($arg),*)
            }

            use $crate::kernels::instruction_set::InstructionSet;
            match set {
                // SAFETY: `available`, where every value comes from, has seen AVX-512F on this processor.
                #[cfg(target_arch = "x86_64")]
                InstructionSet::Avx512 => unsafe { avx512($($arg),*) },
                // SAFETY: likewise AVX2 and FMA.
                #[cfg(target_arch = "x86_64")]
                InstructionSet::Avx2 => unsafe { avx2($($arg),*) },
                InstructionSet::Portable => portable($($arg),*),
            }
        }
    )*};
}

pub(super) use vectorised;
