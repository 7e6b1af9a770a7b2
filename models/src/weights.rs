//! The weights of a bundle: one or several safetensors files, whose headers are checked before a byte of a
//! tensor is read, and whose tensors are read one by one, and matrices that are packed a few rows at a time: peak memory stays near
//! the size of what they become.

use std::collections::{BTreeMap, HashMap};
use std::ffi::OsStr;
use std::io::SeekFrom;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use candle_core::{DType, Device, Tensor};
use safetensors::Dtype;
use safetensors::tensor::{Metadata, TensorInfo};

use crate::Error;
use crate::bundle::{BundleSource, ReadSeek};
use crate::kernels::{nearest_byte, scale_of_bytes};
use crate::lora::Adapter;
use crate::row_means::RowMeans;
use crate::stored_tensor::StoredTensor;

const SINGLE: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";
/// What is behind the name of a matrix of bytes in that of its scales.
const SCALE: &str = ".scale";
/// Matrices with fewer numbers are not worth their scales.
const MIN_QUANTISED: usize = 1024;

/// Headers above this are not read: the largest published checkpoints stay under a tenth of it.
const MAX_HEADER_BYTES: u64 = 50 << 20;

/// Opened weight files and what each holds.
pub struct Weights {
    /// The only weight file, or the index of several.
    path: PathBuf,
    files: Vec<WeightFile>,
    entries: BTreeMap<String, Entry>,
    /// What some tensors are changed by.
    adapter: Option<Box<Adapter>>,
    /// Where rows of a tensor are others than in its file: what becomes of them, one step after the other.
    rows: BTreeMap<String, Vec<RowMeans>>,
}

struct WeightFile {
    path: PathBuf,
    file: Mutex<Box<dyn ReadSeek>>,
    data_offset_bytes: u64,
}

#[derive(Clone)]
struct Entry {
    file: usize,
    dtype: Dtype,
    shape: Vec<usize>,
    offset_bytes: u64,
    n_bytes: usize,
    /// What a row of bytes is multiplied by.
    scales: Option<Arc<[f32]>>,
}

impl Weights {
    /// Opens `model.safetensors` in `dir`, or the shards that `model.safetensors.index.json` names.
    ///
    /// # Errors
    /// Missing, truncated or forged files, with the file named.
    pub fn open(dir: &Path) -> Result<Self, Error> {
        Self::from_source(&dir.into())
    }

    /// Opens the weights of a bundle, wherever it is.
    ///
    /// # Errors
    /// What [`Weights::open`] refuses.
    pub fn from_source(source: &BundleSource) -> Result<Self, Error> {
        if let BundleSource::Adapted { base, adapter } = source {
            return Self::from_source(base)?.with_adapter(Adapter::open(adapter)?);
        }
        let (path, names) = if source.has(SINGLE) {
            (source.path(SINGLE), vec![SINGLE.to_owned()])
        } else if source.has(INDEX) {
            (source.path(INDEX), shard_names(source)?)
        } else {
            return Err(Error::file(
                &source.path(SINGLE),
                "no such file: a bundle keeps its weights in model.safetensors (checkpoints in other formats are not read)",
            ));
        };
        Self::of_files(source, path, &names)
    }

    /// Opens one file of tensors.
    pub(crate) fn of_file(source: &BundleSource, name: &str) -> Result<Self, Error> {
        Self::of_files(source, source.path(name), &[name.to_owned()])
    }

    fn of_files(source: &BundleSource, path: PathBuf, names: &[String]) -> Result<Self, Error> {
        let mut weights =
            Self { path, files: Vec::new(), entries: BTreeMap::new(), adapter: None, rows: BTreeMap::new() };
        for name in names {
            weights.add_file(source, name)?;
        }
        Ok(weights)
    }

    /// These weights with other rows of some tensors, as far as there are such.
    #[must_use]
    pub(crate) fn with_rows(mut self, names: &[&str], means: &RowMeans) -> Self {
        for name in names.iter().filter(|name| self.entries.contains_key(**name)) {
            self.rows.entry((*name).to_owned()).or_default().push(means.clone());
        }
        self
    }

    /// These weights without those of the layer at this place.
    #[must_use]
    pub(crate) fn without(mut self, layer: &str) -> Self {
        let is_other = |name: &String| name.strip_prefix(layer).is_none_or(|rest| !rest.starts_with('.'));
        self.entries.retain(|name, _| is_other(name));
        self.rows.retain(|name, _| is_other(name));
        self
    }

    /// These weights with some of the layers whose names begin with `prefix` and a number, counted anew.
    ///
    /// # Errors
    /// An adapter whose updates are of the layers as they were counted before.
    pub(crate) fn with_layers(mut self, prefix: &str, layers: &[usize]) -> Result<Self, Error> {
        let are_counted_anew = layers.iter().enumerate().any(|(place, layer)| place != *layer);
        if let (Some(adapter), true) = (&self.adapter, are_counted_anew) {
            let message = "counts the layers of its base, of which some are to be left out; merge it first (speechd models merge)";
            return Err(Error::file(&adapter.path(), message));
        }
        let renamed = self.entries.into_iter().filter_map(|(name, entry)| {
            let Some((layer, rest)) = name.strip_prefix(prefix).and_then(|rest| rest.split_once('.')) else {
                return Some((name, entry));
            };
            let place = layers.iter().position(|kept| layer.parse() == Ok(*kept))?;
            Some((format!("{prefix}{place}.{rest}"), entry))
        });
        self.entries = renamed.collect();
        Ok(self)
    }

    /// These weights with those of `other` at some layers in the place of their own, each pair being ours and theirs.
    ///
    /// # Errors
    /// Adapters, whose updates are of layers by their names.
    pub(crate) fn with_layers_of(mut self, layers: &[(&str, &str)], other: Self) -> Result<Self, Error> {
        if let Some(adapter) = [&self.adapter, &other.adapter].into_iter().flatten().next() {
            let message =
                "is an adapter, of which no part can be taken; merge it first (speechd models merge)";
            return Err(Error::file(&adapter.path(), message));
        }
        for (ours, _) in layers {
            self = self.without(ours);
        }
        let renamed = |name: &str| {
            let mut below = layers.iter().filter_map(|(ours, theirs)| {
                let rest = name.strip_prefix(theirs).filter(|rest| rest.starts_with('.'))?;
                Some(format!("{ours}{rest}"))
            });
            below.next()
        };
        let n_files = self.files.len();
        let entries = other.entries.into_iter().filter_map(|(name, entry)| Some((renamed(&name)?, entry)));
        self.entries
            .extend(entries.map(|(name, entry)| (name, Entry { file: n_files + entry.file, ..entry })));
        self.rows.extend(other.rows.into_iter().filter_map(|(name, rows)| Some((renamed(&name)?, rows))));
        self.files.extend(other.files);
        Ok(self)
    }

    /// These weights with an adapter's updates added to them.
    fn with_adapter(mut self, adapter: Adapter) -> Result<Self, Error> {
        if let Some(layer) = adapter.layers().find(|layer| !self.contains(&format!("{layer}.weight"))) {
            let message = format!("its base {} has no such layer", self.path.display());
            return Err(Error::key(&adapter.path(), layer, message));
        }
        if self.adapter.is_some() {
            return Err(Error::file(&adapter.path(), "its base is an adapter itself; merge that one first"));
        }
        self.adapter = Some(Box::new(adapter));
        Ok(self)
    }

    fn add_file(&mut self, source: &BundleSource, name: &str) -> Result<(), Error> {
        let path = source.path(name);
        let (mut file, n_file_bytes) = source.open(name)?;
        let (metadata, data_offset_bytes) = read_header(&mut *file, n_file_bytes, &path)?;
        let infos = sorted(&metadata);
        for (name, info) in &infos {
            let (start, end) = info.data_offsets;
            let is_scale = |of: &str| infos.get(of).is_some_and(|info| info.dtype == Dtype::I8);
            if name.strip_suffix(SCALE).is_some_and(is_scale) {
                continue;
            }
            let scales = match info.dtype {
                Dtype::I8 => Some(read_scales(&mut *file, &infos, name, data_offset_bytes, &path)?),
                _ => None,
            };
            let entry = Entry {
                file: self.files.len(),
                dtype: info.dtype,
                shape: info.shape.clone(),
                offset_bytes: data_offset_bytes + start as u64,
                n_bytes: end - start,
                scales,
            };
            if self.entries.insert(name.clone(), entry).is_some() {
                return Err(Error::key(&path, name, "is in two weight files"));
            }
        }
        self.files.push(WeightFile { path, file: Mutex::new(file), data_offset_bytes });
        Ok(())
    }

    /// Whether a tensor of this name is there.
    pub fn contains(&self, name: &str) -> bool {
        self.entries.contains_key(name)
    }

    /// Every tensor's name, shape and dtype, in order of name.
    pub fn tensors(&self) -> impl Iterator<Item = (&str, &[usize], String)> {
        self.entries
            .iter()
            .map(|(name, entry)| (name.as_str(), entry.shape.as_slice(), entry.dtype.to_string()))
    }

    /// Numbers in all tensors together.
    pub fn n_parameters(&self) -> usize {
        self.entries.values().map(|entry| entry.shape.iter().product::<usize>()).sum()
    }

    /// Bytes of all weight files, headers included.
    pub fn n_bytes(&self) -> u64 {
        let of_scales = |entry: &Entry| entry.scales.as_ref().map_or(0, |scales| size_of_val(&**scales));
        let data: u64 = self.entries.values().map(|entry| (entry.n_bytes + of_scales(entry)) as u64).sum();
        data + self.files.iter().map(|file| file.data_offset_bytes).sum::<u64>()
    }

    /// The weight files.
    pub fn paths(&self) -> impl Iterator<Item = &Path> {
        self.files.iter().map(|file| file.path.as_path())
    }

    /// Reads one tensor as f32, whatever floating type it is stored in.
    ///
    /// # Errors
    /// A missing tensor, a shape other than `shape`, a type that is no float, a value that is not finite.
    pub fn read(&self, name: &str, shape: &[usize], device: &Device) -> Result<Tensor, Error> {
        let (Some(steps), Some(entry), Some((_, row))) =
            (self.rows.get(name), self.entries.get(name), shape.split_first())
        else {
            return self.read_stored(name, shape, device);
        };
        let n_stored = entry.shape.first().copied().unwrap_or_default();
        let stored = self.read_stored(name, &[&[n_stored], row].concat(), &Device::Cpu)?;
        let (mut values, mut n) = (stored.flatten_all()?.to_vec1::<f32>()?, n_stored);
        for means in steps {
            if let Some(row) = means.missing(n) {
                let message = format!("has {n} rows, and none of token {row}, which tokenizer.json has");
                return Err(Error::key(&self.files[entry.file].path, name, message));
            }
            values = means.of(&values, n).unwrap_or_default();
            n = means.rows.len();
        }
        if values.len() != shape.iter().product::<usize>() {
            let message =
                format!("has {n_stored} rows, of which {n} are made; config.json asks for {shape:?}");
            return Err(Error::key(&self.files[entry.file].path, name, message));
        }
        Ok(Tensor::from_vec(values, shape, device)?)
    }

    fn read_stored(&self, name: &str, shape: &[usize], device: &Device) -> Result<Tensor, Error> {
        let stored = self.stored(name, shape)?;
        let mut values = vec![0f32; stored.n_values()];
        stored.read(0, &mut values)?;
        let tensor = Tensor::from_vec(values, shape, &Device::Cpu)?;
        let tensor = match &self.adapter {
            Some(adapter) => adapter.apply(name, tensor)?,
            None => tensor,
        };
        Ok(tensor.to_device(device)?)
    }

    fn stored(&self, name: &str, shape: &[usize]) -> Result<StoredTensor<'_>, Error> {
        let Some((name, entry)) = self.entries.get_key_value(name) else {
            return Err(Error::key(&self.path, name, "the tensor is missing; config.json asks for it"));
        };
        let file = &self.files[entry.file];
        if entry.shape != shape {
            let message = format!("has shape {:?}, config.json asks for {shape:?}", entry.shape);
            return Err(Error::key(&file.path, name, message));
        }
        let place = (entry.offset_bytes, entry.n_bytes);
        let stored = StoredTensor::new(name, &file.path, &file.file, entry.dtype, place)?;
        Ok(match &entry.scales {
            Some(scales) => stored.with_scales(scales.clone(), entry.shape.iter().skip(1).product()),
            None => stored,
        })
    }

    /// A tensor whose values can be read some at a time; `None` where they are others than those of the file.
    ///
    /// # Errors
    /// A missing tensor, a shape other than `shape`, a type that is no float.
    pub(crate) fn part_by_part(
        &self,
        name: &str,
        shape: &[usize],
    ) -> Result<Option<StoredTensor<'_>>, Error> {
        if self.rows.contains_key(name) || self.adapter.as_ref().is_some_and(|adapter| adapter.changes(name))
        {
            return Ok(None);
        }
        self.stored(name, shape).map(Some)
    }

    /// Whether both have the same tensors, to the last bit, under names that begin with `prefix`, and some at all.
    ///
    /// # Errors
    /// Files that cannot be read.
    pub(crate) fn are_equal_below(&self, other: &Self, prefix: &str) -> Result<bool, Error> {
        let below = |weights: &Self| -> Vec<(String, Vec<usize>)> {
            // How many batches a norm has seen (torch) is no part of what it does.
            let entries = weights
                .entries
                .iter()
                .filter(|(name, _)| name.starts_with(prefix) && !name.ends_with(".num_batches_tracked"));
            entries.map(|(name, entry)| (name.clone(), entry.shape.clone())).collect()
        };
        let (ours, theirs) = (below(self), below(other));
        if ours.is_empty() || ours != theirs {
            return Ok(false);
        }
        for (name, shape) in ours {
            let bits = |weights: &Self| -> Result<Vec<u32>, Error> {
                let values = weights.read(&name, &shape, &Device::Cpu)?.flatten_all()?.to_vec1::<f32>()?;
                Ok(values.into_iter().map(f32::to_bits).collect())
            };
            if bits(self)? != bits(other)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// All tensors as they are read one by one.
    ///
    /// # Errors
    /// What [`Weights::read`] refuses.
    pub fn read_all(&self, device: &Device) -> Result<BTreeMap<String, Tensor>, Error> {
        let read = |(name, entry): (&String, &Entry)| {
            let mut shape = entry.shape.clone();
            if let (Some(n_rows), Some(last)) =
                (shape.first_mut(), self.rows.get(name).and_then(|steps| steps.last()))
            {
                *n_rows = last.rows.len();
            }
            Ok((name.clone(), self.read(name, &shape, device)?))
        };
        self.entries.iter().map(read).collect()
    }
}

/// The scales of a matrix of bytes, one for each row.
fn read_scales(
    file: &mut dyn ReadSeek,
    infos: &BTreeMap<String, &TensorInfo>,
    name: &str,
    data_offset_bytes: u64,
    path: &Path,
) -> Result<Arc<[f32]>, Error> {
    let n_rows = infos.get(name).and_then(|info| info.shape.first().copied());
    let scale = infos.get(&format!("{name}{SCALE}"));
    let scale = scale.filter(|info| info.dtype == Dtype::F32 && info.shape.len() == 1);
    let (Some(n_rows), Some(scale)) = (n_rows, scale.filter(|info| info.shape.first().copied() == n_rows))
    else {
        let message =
            format!("is stored as I8, and no F32 tensor `{name}{SCALE}` has a scale for each of its rows");
        return Err(Error::key(path, name, message));
    };
    let mut bytes = vec![0u8; 4 * n_rows];
    file.seek(SeekFrom::Start(data_offset_bytes + scale.data_offsets.0 as u64))
        .and_then(|_| file.read_exact(&mut bytes))
        .map_err(|error| Error::key(path, name, error))?;
    Ok(bytes.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect())
}

/// Tensors in order of name, so that errors do not depend on a hash.
fn sorted(metadata: &Metadata) -> BTreeMap<String, &TensorInfo> {
    metadata.tensors().into_iter().collect()
}

fn read_header(file: &mut dyn ReadSeek, n_file_bytes: u64, path: &Path) -> Result<(Metadata, u64), Error> {
    let truncated =
        || Error::file(path, format!("is truncated: {n_file_bytes} bytes hold no safetensors header"));
    let mut prefix = [0u8; 8];
    file.read_exact(&mut prefix).map_err(|_| truncated())?;
    let n_header_bytes = u64::from_le_bytes(prefix);
    if n_header_bytes > MAX_HEADER_BYTES {
        let message = format!("is not a safetensors file: it claims a header of {n_header_bytes} bytes");
        return Err(Error::file(path, message));
    }
    if n_header_bytes + 8 > n_file_bytes {
        return Err(truncated());
    }
    let mut header = vec![0u8; n_header_bytes as usize];
    file.read_exact(&mut header).map_err(|_| truncated())?;
    // Deserialising checks that offsets follow each other without holes and that each tensor's bytes match
    // its shape and type; the error names the tensor.
    let metadata: Metadata = serde_json::from_slice(&header)
        .map_err(|error| Error::file(path, format!("its safetensors header is invalid: {error}")))?;
    let n_data_bytes = n_file_bytes - 8 - n_header_bytes;
    for (name, info) in sorted(&metadata) {
        if info.data_offsets.1 as u64 > n_data_bytes {
            let message =
                format!("ends at byte {} of {n_data_bytes}: the file is truncated", info.data_offsets.1);
            return Err(Error::key(path, name, message));
        }
    }
    let n_described = metadata.data_len() as u64;
    if n_described != n_data_bytes {
        let message = format!("its header describes {n_described} bytes of data, {n_data_bytes} follow it");
        return Err(Error::file(path, message));
    }
    Ok((metadata, 8 + n_header_bytes))
}

fn shard_names(source: &BundleSource) -> Result<Vec<String>, Error> {
    #[derive(serde::Deserialize)]
    struct Index {
        weight_map: BTreeMap<String, String>,
    }
    let index = &source.path(INDEX);
    let parsed: Index =
        serde_json::from_slice(&source.read(INDEX)?).map_err(|error| Error::file(index, error))?;
    if parsed.weight_map.is_empty() {
        return Err(Error::key(index, "weight_map", "is empty"));
    }
    let mut names: Vec<String> = parsed.weight_map.into_values().collect();
    names.sort();
    names.dedup();
    // A shard lies beside its index; anything else is an attempt to read elsewhere.
    let is_plain = |name: &String| Path::new(name).file_name() == Some(OsStr::new(name));
    match names.iter().find(|name| !is_plain(name)) {
        Some(name) => Err(Error::key(index, name, "is not a plain file name")),
        None => Ok(names),
    }
}

/// How weights are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WeightDtype {
    /// As they are trained.
    #[default]
    F32,
    /// Half the size; 3 decimal digits, up to 65,504.
    F16,
    /// A quarter: a byte for each number of a matrix and a scale for each of its rows; what is no matrix in 16 bits. Other programs do not read it.
    Int8,
}

/// Writes tensors as the `model.safetensors` of a bundle in `dir`.
///
/// # Errors
/// Values that are not finite or too large for the type, what the disk refuses.
pub fn write_weights(
    dir: &Path,
    tensors: &BTreeMap<String, Tensor>,
    dtype: WeightDtype,
) -> Result<(), Error> {
    write_named(&dir.join(SINGLE), tensors, dtype)
}

/// [`write_weights`] into a file of another name.
pub(crate) fn write_named(
    path: &Path,
    tensors: &BTreeMap<String, Tensor>,
    dtype: WeightDtype,
) -> Result<(), Error> {
    let mut stored = Vec::with_capacity(tensors.len());
    for (name, tensor) in tensors {
        let is_quantised =
            dtype == WeightDtype::Int8 && tensor.rank() > 1 && tensor.elem_count() >= MIN_QUANTISED;
        let float = if dtype == WeightDtype::F32 || is_quantised { DType::F32 } else { DType::F16 };
        let tensor = tensor.to_dtype(float)?;
        // A sum is not finite if a value is not; zeros keep a large tensor's own sum from overflowing.
        let zeros = (tensor.to_dtype(DType::F32)? * 0.0)?.sum_all()?.to_scalar::<f32>()?;
        if !zeros.is_finite() {
            let message = format!("holds values that are not finite as {float:?}; the training diverged");
            return Err(Error::key(path, name, message));
        }
        if is_quantised {
            let (values, scales) = Written::quantised(&tensor)?;
            stored.push((name.clone(), values));
            stored.push((format!("{name}{SCALE}"), scales));
        } else {
            stored.push((name.clone(), Written::of(&tensor)?));
        }
    }
    // Hugging Face's libraries refuse files that do not say who wrote them.
    let metadata = HashMap::from([("format".to_owned(), "pt".to_owned())]);
    safetensors::serialize_to_file(stored, Some(metadata), path).map_err(|error| Error::file(path, error))
}

/// A tensor as it is written.
struct Written {
    dtype: Dtype,
    shape: Vec<usize>,
    bytes: Vec<u8>,
}

impl Written {
    fn of(tensor: &Tensor) -> Result<Self, Error> {
        let bytes = safetensors::View::data(&tensor).into_owned();
        Ok(Self { dtype: safetensors::View::dtype(&tensor), shape: tensor.dims().to_vec(), bytes })
    }

    /// Bytes, and the largest number of each row over 127: symmetric quantisation, as kernels round the rows of a weight.
    fn quantised(tensor: &Tensor) -> Result<(Self, Self), Error> {
        let values = tensor.flatten_all()?.to_vec1::<f32>()?;
        let shape = tensor.dims().to_vec();
        let n_rows = shape.first().copied().unwrap_or(1);
        let (mut bytes, mut scales) = (Vec::with_capacity(values.len()), Vec::with_capacity(4 * n_rows));
        for row in values.chunks_exact((values.len() / n_rows.max(1)).max(1)) {
            let largest = row.iter().fold(0f32, |most, value| most.max(value.abs()));
            let (scale, inverse) = scale_of_bytes(largest);
            bytes.extend(row.iter().map(|value| nearest_byte(value * inverse).cast_unsigned()));
            scales.extend(scale.to_le_bytes());
        }
        let scales = Self { dtype: Dtype::F32, shape: vec![n_rows], bytes: scales };
        Ok((Self { dtype: Dtype::I8, shape, bytes }, scales))
    }
}

impl safetensors::View for Written {
    fn dtype(&self) -> Dtype {
        self.dtype
    }

    fn shape(&self) -> &[usize] {
        &self.shape
    }

    fn data(&self) -> std::borrow::Cow<'_, [u8]> {
        self.bytes.as_slice().into()
    }

    fn data_len(&self) -> usize {
        self.bytes.len()
    }
}
