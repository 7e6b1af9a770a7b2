//! The tensors of `model_weights.ckpt`: a zip with a pickle that describes them and a file for the numbers of each
//! (PyTorch `torch/serialization.py`, `torch/_utils.py: _rebuild_tensor_v2`).

use std::collections::BTreeMap;
use std::io::{self, BufReader, Read};
use std::path::PathBuf;

use candle_core::{Device, Tensor};
use half::{bf16, f16};
use zip::{CompressionMethod, ZipArchive};

use super::archive::{Archive, Member};
use super::pickle::{Id, Object, Pickle};
use crate::Error;

/// What describes tensors takes some hundred bytes for each.
const MAX_PICKLE_BYTES: u64 = 16 << 20;
/// More tensors than this are no model: the largest published ones have some ten thousand.
const MAX_TENSORS: usize = 1 << 16;
/// Nor are more axes: weights of convolutions have four.
const MAX_RANK: usize = 8;

/// A state dictionary.
pub(super) struct Checkpoint<'a> {
    path: PathBuf,
    zip: ZipArchive<BufReader<Member<'a>>>,
    /// The folder in the zip.
    root: String,
    pickle: Pickle,
    tensors: BTreeMap<String, Stored>,
    /// Bytes that may still be read: a forged file may name the same numbers a million times.
    n_bytes_left: u64,
}

#[derive(Debug, Clone)]
struct Stored {
    /// The file of its numbers, a text of the pickle.
    key: Id,
    /// How torch calls their type.
    kind: Id,
    offset: usize,
    shape: Vec<usize>,
}

impl<'a> Checkpoint<'a> {
    /// Opens the member `name`.
    ///
    /// # Errors
    /// A member that is missing or is no checkpoint, tensors that are not described as torch does.
    pub fn open(archive: &'a Archive, name: &str) -> Result<Self, Error> {
        let path = archive.path(name);
        let member = archive.member(name)?;
        let n_bytes = member.n_bytes();
        let mut zip = ZipArchive::new(BufReader::new(member)).map_err(|error| {
            Error::file(&path, format!("is no PyTorch checkpoint in a zip (torch 1.6 and later): {error}"))
        })?;
        let wrong = |message: String| Error::file(&path, message);
        let pickles =
            zip.file_names().filter_map(|name| name.ok()?.strip_suffix("data.pkl").map(str::to_owned));
        let roots: Vec<String> = pickles.collect();
        let [root] = &roots[..] else {
            return Err(wrong(format!("has {} files data.pkl; a checkpoint has one", roots.len())));
        };
        let root = root.clone();
        if let Some(order) = contents(&mut zip, &format!("{root}byteorder"), 16).map_err(&wrong)?
            && order != b"little"
        {
            return Err(wrong(format!(
                "has numbers in the byte order {:?}",
                String::from_utf8_lossy(&order)
            )));
        }
        let bytes = contents(&mut zip, &format!("{root}data.pkl"), MAX_PICKLE_BYTES).map_err(&wrong)?;
        let pickle = Pickle::read(&bytes.unwrap_or_default()).map_err(wrong)?;
        let mut tensors = BTreeMap::new();
        for (key, value) in state_dictionary(&pickle) {
            let Some(name) = pickle.text(key) else { continue };
            let Some(arguments) = rebuilt(&pickle, value) else { continue };
            if tensors.len() >= MAX_TENSORS {
                return Err(Error::file(&path, format!("has more than {MAX_TENSORS} tensors")));
            }
            let stored = stored(&pickle, arguments)
                .ok_or_else(|| Error::key(&path, name, "is not described as a tensor without gaps is"))?;
            tensors.insert(name.to_owned(), stored);
        }
        // Tied weights are read once under each name and once to be compared, which for an embedding may be most of the file.
        Ok(Self { path, zip, root, pickle, tensors, n_bytes_left: n_bytes.saturating_mul(3) })
    }

    /// Where it lies.
    pub fn path(&self) -> &std::path::Path {
        &self.path
    }

    /// Names of all tensors.
    pub fn names(&self) -> Vec<String> {
        self.tensors.keys().cloned().collect()
    }

    /// A tensor's shape.
    pub fn shape(&self, name: &str) -> Option<&[usize]> {
        self.tensors.get(name).map(|stored| stored.shape.as_slice())
    }

    /// A tensor, as f32.
    ///
    /// # Errors
    /// A missing tensor, numbers that are missing or no floats.
    pub fn read(&mut self, name: &str) -> Result<Tensor, Error> {
        let path = self.path.clone();
        let refuse = |message: String| Error::key(&path, name, message);
        let stored =
            self.tensors.get(name).cloned().ok_or_else(|| refuse("the tensor is missing".to_owned()))?;
        let kind = self.pickle.global(stored.kind).unwrap_or_default();
        let (n_value_bytes, convert): (usize, fn(&[u8]) -> f32) = match kind {
            ("torch", "FloatStorage") => (4, |b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])),
            ("torch", "HalfStorage") => (2, |b| f16::from_le_bytes([b[0], b[1]]).to_f32()),
            ("torch", "BFloat16Storage") => (2, |b| bf16::from_le_bytes([b[0], b[1]]).to_f32()),
            (module, name) => {
                let known = "torch.FloatStorage, HalfStorage and BFloat16Storage are read";
                return Err(refuse(format!("is stored as {module}.{name}; {known}")));
            }
        };
        let n_bytes = |n: usize| n.checked_mul(n_value_bytes).map(|n| n as u64);
        let n_values = stored.shape.iter().try_fold(1usize, |n, dim| n.checked_mul(*dim));
        let (Some(skipped), Some(n_read)) = (n_bytes(stored.offset), n_values.and_then(n_bytes)) else {
            return Err(refuse(format!("has shape {:?}, which no file holds", stored.shape)));
        };
        let key = self.pickle.text(stored.key).unwrap_or_default();
        let file = format!("{}data/{key}", self.root);
        let mut entry = self.zip.by_name(&file).map_err(|error| refuse(format!("{file}: {error}")))?;
        let end = skipped.checked_add(n_read);
        if entry.compression() != CompressionMethod::Stored || end.is_none_or(|end| end > entry.size()) {
            let message = format!("{file} has {} bytes; {:?} needs others", entry.size(), stored.shape);
            return Err(refuse(message));
        }
        self.n_bytes_left = self
            .n_bytes_left
            .checked_sub(n_read)
            .ok_or_else(|| refuse("names the numbers of other tensors again".to_owned()))?;
        let mut bytes = Vec::with_capacity(n_read as usize);
        // The sum of what is read whole is checked at its end, which has to be reached.
        let is_whole = skipped == 0 && n_read == entry.size();
        let n_asked = n_read + u64::from(is_whole);
        io::copy(&mut entry.by_ref().take(skipped), &mut io::sink())
            .and_then(|_| entry.take(n_asked).read_to_end(&mut bytes))
            .map_err(|error| refuse(format!("{file}: {error}")))?;
        if bytes.len() as u64 != n_read {
            return Err(refuse(format!("{file} is cut off")));
        }
        let values: Vec<f32> = bytes.chunks_exact(n_value_bytes).map(convert).collect();
        Ok(Tensor::from_vec(values, stored.shape, &Device::Cpu)?)
    }
}

/// A file of the zip, if it is there.
fn contents<R: Read + io::Seek>(
    zip: &mut ZipArchive<R>,
    name: &str,
    max_bytes: u64,
) -> Result<Option<Vec<u8>>, String> {
    let entry = match zip.by_name(name) {
        Ok(entry) => entry,
        Err(zip::result::ZipError::FileNotFound) => return Ok(None),
        Err(error) => return Err(format!("{name}: {error}")),
    };
    let mut bytes = Vec::new();
    entry.take(max_bytes + 1).read_to_end(&mut bytes).map_err(|error| format!("{name}: {error}"))?;
    if bytes.len() as u64 > max_bytes {
        return Err(format!("{name} has more than {max_bytes} bytes"));
    }
    Ok(Some(bytes))
}

/// Names and values, at the top or below `state_dict`, where trainers have it.
fn state_dictionary(pickle: &Pickle) -> Vec<(Id, Id)> {
    let Object::Dict(pairs) = pickle.top() else { return Vec::new() };
    let below = pairs.iter().find(|(key, _)| pickle.text(*key) == Some("state_dict"));
    match below.map(|(_, value)| pickle.object(*value)) {
        Some(Object::Dict(pairs)) => pairs.clone(),
        _ => pairs.clone(),
    }
}

/// What torch makes tensors with.
const REBUILD: (&str, &str) = ("torch._utils", "_rebuild_tensor_v2");

/// What a tensor is rebuilt from, if `value` is one.
fn rebuilt(pickle: &Pickle, value: Id) -> Option<&[Id]> {
    let Object::Call(callable, arguments) = pickle.object(value) else { return None };
    let arguments = pickle.items(*arguments)?;
    match pickle.global(*callable)? {
        REBUILD => Some(arguments),
        ("torch._utils", "_rebuild_parameter") => match pickle.object(*arguments.first()?) {
            Object::Call(callable, arguments) => {
                (pickle.global(*callable)? == REBUILD).then_some(())?;
                pickle.items(*arguments)
            }
            _ => None,
        },
        _ => None,
    }
}

/// Storage, offset, size and stride.
fn stored(pickle: &Pickle, arguments: &[Id]) -> Option<Stored> {
    let &[storage, offset, size, stride, ..] = arguments else { return None };
    let Object::Persistent(storage) = pickle.object(storage) else { return None };
    let &[label, kind, key, ..] = pickle.items(*storage)? else { return None };
    let shape = pickle.counts(size, MAX_RANK)?;
    let strides = pickle.counts(stride, MAX_RANK)?;
    let mut step = Some(1usize);
    let is_dense = shape.iter().zip(&strides).rev().all(|(dim, stride)| {
        let is_next = *dim <= 1 || Some(*stride) == step;
        step = step.and_then(|step| step.checked_mul(*dim));
        is_next
    });
    (pickle.text(label) == Some("storage") && shape.len() == strides.len() && is_dense).then_some(())?;
    (pickle.text(key).is_some() && pickle.global(kind).is_some()).then_some(())?;
    Some(Stored { key, kind, offset: pickle.count(offset)?, shape })
}
