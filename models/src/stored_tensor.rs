//! A tensor in its file, whose values are read as f32, some at a time.

use std::io::SeekFrom;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use half::{bf16, f16};
use safetensors::Dtype;

use crate::Error;
use crate::bundle::ReadSeek;
use crate::kernels::are_finite;

/// Bytes that are read at once: whole values of every type.
const READ_BYTES: usize = 1 << 18;

type Convert = fn(&[u8], &mut [f32]);

/// A tensor in its file.
pub(crate) struct StoredTensor<'a> {
    name: &'a str,
    path: &'a Path,
    file: &'a Mutex<Box<dyn ReadSeek>>,
    offset_bytes: u64,
    n_values: usize,
    value_bytes: usize,
    convert: Convert,
    /// What each row of so many values is multiplied by.
    scales: Option<(Arc<[f32]>, usize)>,
}

impl<'a> StoredTensor<'a> {
    /// The tensor `name`, which lies in `file` from `offset_bytes` on.
    ///
    /// # Errors
    /// A type that is no float.
    pub fn new(
        name: &'a str,
        path: &'a Path,
        file: &'a Mutex<Box<dyn ReadSeek>>,
        dtype: Dtype,
        (offset_bytes, n_bytes): (u64, usize),
    ) -> Result<Self, Error> {
        let (value_bytes, convert): (usize, Convert) = match dtype {
            Dtype::F32 => (4, |bytes, values| convert(bytes, values, f32::from_le_bytes)),
            Dtype::F16 => (2, |bytes, values| convert(bytes, values, |x| f16::from_le_bytes(x).to_f32())),
            Dtype::BF16 => (2, |bytes, values| convert(bytes, values, |x| bf16::from_le_bytes(x).to_f32())),
            Dtype::I8 => (1, |bytes, values| convert(bytes, values, |x| f32::from(i8::from_le_bytes(x)))),
            other => {
                let message = format!("is stored as {other}; F32, F16, BF16 and I8 are read");
                return Err(Error::key(path, name, message));
            }
        };
        let n_values = n_bytes / value_bytes;
        Ok(Self { name, path, file, offset_bytes, n_values, value_bytes, convert, scales: None })
    }

    /// The same with each row of `row_len` values multiplied by a number of its own.
    #[must_use]
    pub fn with_scales(self, scales: Arc<[f32]>, row_len: usize) -> Self {
        Self { scales: Some((scales, row_len)), ..self }
    }

    /// How many values it has.
    pub fn n_values(&self) -> usize {
        self.n_values
    }

    /// Reads values from `first` on, as many as there is room for.
    ///
    /// # Errors
    /// What the disk refuses, a value that is not finite.
    ///
    /// # Panics
    /// When there are fewer.
    pub fn read(&self, first: usize, values: &mut [f32]) -> Result<(), Error> {
        assert!(first + values.len() <= self.n_values, "`{}` has {} values", self.name, self.n_values);
        // Little at a time, which stays in the caches until it is converted and looked at.
        let n_at_once = READ_BYTES / self.value_bytes;
        let mut bytes = vec![0u8; n_at_once.min(values.len()) * self.value_bytes];
        for (first, values) in (first..).step_by(n_at_once).zip(values.chunks_mut(n_at_once)) {
            let bytes = &mut bytes[..values.len() * self.value_bytes];
            {
                let mut handle = self.file.lock().unwrap_or_else(PoisonError::into_inner);
                handle
                    .seek(SeekFrom::Start(self.offset_bytes + (first * self.value_bytes) as u64))
                    .and_then(|_| handle.read_exact(bytes))
                    .map_err(|error| Error::key(self.path, self.name, error))?;
            }
            (self.convert)(bytes, values);
            if let Some((scales, row_len)) = &self.scales {
                for (at, value) in (first..).zip(values.iter_mut()) {
                    *value *= scales[at / row_len];
                }
            }
            if !are_finite(values)
                && let Some(at) = values.iter().position(|value| !value.is_finite())
            {
                let (at, value) = (first + at, values[at]);
                let message =
                    format!("value {at} is {value}; the checkpoint is damaged or its training diverged");
                return Err(Error::key(self.path, self.name, message));
            }
        }
        Ok(())
    }
}

fn convert<const N: usize>(bytes: &[u8], values: &mut [f32], value: impl Fn([u8; N]) -> f32) {
    for (to, bytes) in values.iter_mut().zip(bytes.as_chunks().0) {
        *to = value(*bytes);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use candle_core::{DType, Device, Tensor};

    use super::*;
    use crate::Weights;
    use crate::kernels::{PackedWeight, Precision};
    use crate::nn::Weight;
    use crate::nn::test_support::noise;
    use crate::params::{Init, Params};

    /// More than is read at once lies in 32 rows, the last panel has 6.
    const SHAPE: (usize, usize) = (70, 5000);

    fn written(tensor: &Tensor) -> Result<tempfile::TempDir, Box<dyn std::error::Error>> {
        let folder = tempfile::tempdir()?;
        let before = Tensor::ones(7, DType::F16, &Device::Cpu)?;
        let tensors = HashMap::from([("a.weight", &before), ("b.weight", tensor)]);
        safetensors::serialize_to_file(tensors, None, &folder.path().join("model.safetensors"))?;
        Ok(folder)
    }

    fn load(folder: &Path, precision: Precision) -> Result<Weight, Error> {
        let params = Params::frozen(Weights::open(folder)?, &Device::Cpu).with_precision(precision);
        Weight::load(&params.root().sub("b"), SHAPE.0, SHAPE.1, Init::Zeros)
    }

    #[test]
    fn what_is_packed_while_it_is_read_is_what_is_packed_as_a_whole() -> Result<(), Box<dyn std::error::Error>>
    {
        for dtype in [DType::F32, DType::F16, DType::BF16] {
            let tensor = noise(SHAPE, 1)?.to_dtype(dtype)?;
            let folder = written(&tensor)?;
            let dense = tensor.to_dtype(DType::F32)?.flatten_all()?.to_vec1::<f32>()?;
            for precision in [Precision::F32, Precision::Bf16, Precision::Int8] {
                let Weight::Packed(packed) = load(folder.path(), precision)? else { panic!("not packed") };
                let whole = PackedWeight::pack(precision, &dense, SHAPE.0, SHAPE.1);
                assert_eq!(
                    (packed.precision(), packed.n_out(), packed.n_in()),
                    (precision, SHAPE.0, SHAPE.1)
                );
                assert!(packed.unpack() == whole.unpack(), "{dtype:?} {precision}");
            }
        }
        Ok(())
    }

    #[test]
    fn bytes_are_read_as_what_they_stand_for() -> Result<(), Box<dyn std::error::Error>> {
        let folder = tempfile::tempdir()?;
        let (tensor, bias) = (noise(SHAPE, 3)?, noise(9, 4)?);
        let names = ["b.weight".to_owned(), "b.bias".to_owned()];
        let tensors = names.into_iter().zip([tensor.clone(), bias.clone()]).collect();
        crate::write_weights(folder.path(), &tensors, crate::WeightDtype::Int8)?;
        let weights = Weights::open(folder.path())?;
        assert_eq!(weights.tensors().map(|(name, ..)| name).collect::<Vec<_>>(), ["b.bias", "b.weight"]);
        assert_eq!(weights.n_parameters(), SHAPE.0 * SHAPE.1 + 9);
        let size = std::fs::metadata(folder.path().join("model.safetensors"))?.len();
        assert!(size < (SHAPE.0 * SHAPE.1) as u64 + 1_000 && weights.n_bytes() == size);
        let read = weights.read("b.weight", &[SHAPE.0, SHAPE.1], &Device::Cpu)?;
        let most = tensor.abs()?.max(1)?.to_vec1::<f32>()?;
        let off = (&read - &tensor)?.abs()?.max(1)?.to_vec1::<f32>()?;
        for (off, most) in off.iter().zip(&most) {
            assert!(*off <= 0.5001 / 127.0 * most, "{off} {most}");
        }
        // In parts as at once.
        let Weight::Packed(packed) = load(folder.path(), Precision::F32)? else { panic!("not packed") };
        let dense = read.flatten_all()?.to_vec1::<f32>()?;
        let whole = PackedWeight::pack(Precision::F32, &dense, SHAPE.0, SHAPE.1);
        assert!(packed.unpack() == whole.unpack());
        Ok(())
    }

    #[test]
    fn bytes_without_scales_are_refused() -> Result<(), Box<dyn std::error::Error>> {
        let folder = tempfile::tempdir()?;
        let bytes = safetensors::tensor::TensorView::new(Dtype::I8, vec![2, 3], &[0; 6])?;
        let scales = [0u8; 12];
        let scales = safetensors::tensor::TensorView::new(Dtype::F32, vec![3], &scales)?;
        for tensors in [vec![("b.weight", &bytes)], vec![("b.weight", &bytes), ("b.weight.scale", &scales)]] {
            safetensors::serialize_to_file(tensors, None, &folder.path().join("model.safetensors"))?;
            let message = Weights::open(folder.path()).map(|_| ()).map_err(|error| error.to_string());
            assert!(message.is_err_and(|message| message.contains("`b.weight`: is stored as I8")));
        }
        Ok(())
    }

    #[test]
    fn the_first_value_that_is_not_finite_is_named() -> Result<(), Box<dyn std::error::Error>> {
        for places in [vec![349_999], vec![5000 * 69 + 4998, 5000 * 40 + 3, 5000 * 33]] {
            let mut values = noise(SHAPE, 1)?.flatten_all()?.to_vec1::<f32>()?;
            places.iter().for_each(|place| values[*place] = f32::NAN);
            let folder = written(&Tensor::from_vec(values, SHAPE, &Device::Cpu)?)?;
            let first = places.iter().min().copied().unwrap_or_default();
            for precision in [Precision::F32, Precision::Bf16, Precision::Int8] {
                let message = load(folder.path(), precision).map(|_| ()).map_err(|error| error.to_string());
                let Err(message) = message else { panic!("NaN was taken") };
                assert!(message.contains(&format!("`b.weight`: value {first} is NaN")), "{message}");
            }
        }
        Ok(())
    }

    #[test]
    fn another_shape_or_type_is_refused() -> Result<(), Box<dyn std::error::Error>> {
        let folder = written(&Tensor::ones((SHAPE.1, SHAPE.0), DType::F32, &Device::Cpu)?)?;
        let message = load(folder.path(), Precision::Int8).map(|_| ()).map_err(|error| error.to_string());
        assert!(message.is_err_and(|message| message.contains("has shape [5000, 70]")));
        let folder = written(&Tensor::ones(SHAPE, DType::U32, &Device::Cpu)?)?;
        let message = load(folder.path(), Precision::Int8).map(|_| ()).map_err(|error| error.to_string());
        assert!(message.is_err_and(|message| message.contains("is stored as U32")));
        Ok(())
    }
}
