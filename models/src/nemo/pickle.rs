//! What a PyTorch checkpoint's `data.pkl` says about its tensors. Nothing is called: what a file would call is only written down.
//!
//! `candle_core::pickle` reads the same, but believes it: a tuple that is too short, a number of nine bytes or a nest of some
//! thousand tuples ends the process there. Here values lie side by side and name each other by their place, so that no value is
//! copied and none is nested.

use std::collections::BTreeMap;

/// Values above this are no state dictionary: the largest published ones have some ten thousand tensors of some twenty values each.
/// What is kept for later counts, too.
const MAX_VALUES: usize = 1 << 22;
/// A longer text is no name of a tensor, a class or a file: published ones stay under a hundred bytes.
const MAX_TEXT_BYTES: usize = 1024;

/// Place of a value.
pub(super) type Id = usize;

/// A value.
#[derive(Debug)]
pub(super) enum Object {
    /// A whole number.
    Int(i64),
    /// A text.
    Text(String),
    /// A class or a function, by the texts of its module and its name.
    Global(Id, Id),
    /// Values in order, in a tuple or a list.
    Items(Vec<Id>),
    /// Keys and values in order.
    Dict(Vec<(Id, Id)>),
    /// What would be called, and with what.
    Call(Id, Id),
    /// What lies in a file of its own.
    Persistent(Id),
    /// Anything else.
    Other,
}

/// All values of a file.
pub(super) struct Pickle {
    objects: Vec<Object>,
    top: Id,
}

impl Pickle {
    /// Reads `bytes`.
    ///
    /// # Errors
    /// What is wrong with them, and where.
    pub fn read(bytes: &[u8]) -> Result<Self, String> {
        let mut machine = Machine {
            bytes,
            at: 0,
            objects: Vec::new(),
            stack: Vec::new(),
            marks: Vec::new(),
            memo: BTreeMap::new(),
        };
        while !machine.step().map_err(|what| format!("byte {} of its pickle: {what}", machine.at))? {}
        let top = machine.pop().map_err(|what| format!("its pickle: {what}"))?;
        Ok(Self { objects: machine.objects, top })
    }

    /// The value that the file is of.
    pub fn top(&self) -> &Object {
        self.object(self.top)
    }

    /// A value by its place.
    pub fn object(&self, id: Id) -> &Object {
        self.objects.get(id).unwrap_or(&Object::Other)
    }

    /// A whole number that is not negative.
    pub fn count(&self, id: Id) -> Option<usize> {
        match self.object(id) {
            Object::Int(n) => usize::try_from(*n).ok(),
            _ => None,
        }
    }

    /// A text.
    pub fn text(&self, id: Id) -> Option<&str> {
        match self.object(id) {
            Object::Text(text) => Some(text),
            _ => None,
        }
    }

    /// The module and the name of a class or a function.
    pub fn global(&self, id: Id) -> Option<(&str, &str)> {
        match self.object(id) {
            Object::Global(module, name) => Some((self.text(*module)?, self.text(*name)?)),
            _ => None,
        }
    }

    /// The values of a tuple or a list.
    pub fn items(&self, id: Id) -> Option<&[Id]> {
        match self.object(id) {
            Object::Items(items) => Some(items),
            _ => None,
        }
    }

    /// Whole numbers that are not negative, `max` of them at most.
    pub fn counts(&self, id: Id, max: usize) -> Option<Vec<usize>> {
        let items = self.items(id).filter(|items| items.len() <= max)?;
        items.iter().map(|id| self.count(*id)).collect()
    }
}

struct Machine<'a> {
    bytes: &'a [u8],
    at: usize,
    objects: Vec<Object>,
    stack: Vec<Id>,
    /// How high the stack was at each mark.
    marks: Vec<usize>,
    memo: BTreeMap<u32, Id>,
}

impl Machine<'_> {
    /// One instruction (CPython `pickletools.py`); whether it was the last.
    fn step(&mut self) -> Result<bool, String> {
        let [code] = self.take()?;
        match code {
            // PROTO, FRAME
            0x80 => drop(self.take::<1>()?),
            0x95 => drop(self.take::<8>()?),
            b'.' => return Ok(true),
            b'(' => {
                self.make_room()?;
                self.marks.push(self.stack.len());
            }
            b'0' => drop(self.pop()?),
            b'N' | 0x88 | 0x89 => self.push(Object::Other)?,
            b'G' => {
                self.take::<8>()?;
                self.push(Object::Other)?;
            }
            b'K' => {
                let [n] = self.take()?;
                self.push(Object::Int(n.into()))?;
            }
            b'M' => {
                let n = u16::from_le_bytes(self.take()?);
                self.push(Object::Int(n.into()))?;
            }
            b'J' => {
                let n = i32::from_le_bytes(self.take()?);
                self.push(Object::Int(n.into()))?;
            }
            0x8a => self.long()?,
            b'X' => {
                let n = u32::from_le_bytes(self.take()?);
                self.text(n as usize)?;
            }
            0x8c => {
                let [n] = self.take()?;
                self.text(n.into())?;
            }
            b'c' => {
                let (module, name) = (self.line()?, self.line()?);
                self.push(Object::Text(module))?;
                self.push(Object::Text(name))?;
                self.stack_global()?;
            }
            0x93 => self.stack_global()?,
            b')' | b']' => self.push(Object::Items(Vec::new()))?,
            b'}' => self.push(Object::Dict(Vec::new()))?,
            b't' => {
                let items = self.pop_to_mark()?;
                self.push(Object::Items(items))?;
            }
            0x85..=0x87 => {
                let n = usize::from(code - 0x84);
                let mut items = (0..n).map(|_| self.pop()).collect::<Result<Vec<_>, _>>()?;
                items.reverse();
                self.push(Object::Items(items))?;
            }
            b'a' => {
                let item = self.pop()?;
                self.append(vec![item])?;
            }
            b'e' => {
                let items = self.pop_to_mark()?;
                self.append(items)?;
            }
            b's' => {
                let value = self.pop()?;
                let key = self.pop()?;
                self.insert(&[key, value])?;
            }
            b'u' => {
                let items = self.pop_to_mark()?;
                self.insert(&items)?;
            }
            b'Q' => {
                let id = self.pop()?;
                self.push(Object::Persistent(id))?;
            }
            // REDUCE, NEWOBJ
            b'R' | 0x81 => self.call()?,
            // BUILD: what an object has beside its contents says nothing about tensors.
            b'b' => drop(self.pop()?),
            b'q' | b'r' | 0x94 => {
                let place = match code {
                    b'q' => self.take::<1>()?[0].into(),
                    b'r' => u32::from_le_bytes(self.take()?),
                    _ => self.memo.len() as u32,
                };
                let top = self.top()?;
                self.make_room()?;
                self.memo.insert(place, top);
            }
            b'h' | b'j' => {
                let place =
                    if code == b'h' { self.take::<1>()?[0].into() } else { u32::from_le_bytes(self.take()?) };
                let id = *self.memo.get(&place).ok_or_else(|| format!("nothing was kept as {place}"))?;
                self.make_room()?;
                self.stack.push(id);
            }
            other => return Err(format!("instruction {other:#04x} is not one that a checkpoint needs")),
        }
        Ok(false)
    }

    fn take<const N: usize>(&mut self) -> Result<[u8; N], String> {
        let bytes = self.bytes.get(self.at..).and_then(<[u8]>::first_chunk).ok_or("it ends here")?;
        self.at += N;
        Ok(*bytes)
    }

    fn slice(&mut self, n: usize) -> Result<&[u8], String> {
        let bytes = self.bytes.get(self.at..).and_then(|rest| rest.get(..n)).ok_or("it ends here")?;
        self.at += n;
        Ok(bytes)
    }

    fn text(&mut self, n_bytes: usize) -> Result<(), String> {
        if n_bytes > MAX_TEXT_BYTES {
            return Err(format!("a text has {n_bytes} bytes; names have at most {MAX_TEXT_BYTES}"));
        }
        let text = std::str::from_utf8(self.slice(n_bytes)?).map_err(|_| "a text is not UTF-8")?.to_owned();
        self.push(Object::Text(text))
    }

    fn line(&mut self) -> Result<String, String> {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let n = rest.iter().take(MAX_TEXT_BYTES + 1).position(|byte| *byte == b'\n');
        let n = n.ok_or_else(|| format!("a name does not end within {MAX_TEXT_BYTES} bytes"))?;
        let line = std::str::from_utf8(&rest[..n]).map_err(|_| "a name is not UTF-8")?.to_owned();
        self.at += n + 1;
        Ok(line)
    }

    /// A number of up to 255 bytes, of which eight are understood.
    fn long(&mut self) -> Result<(), String> {
        let [n] = self.take()?;
        let bytes = self.slice(n.into())?;
        let mut number = [if bytes.last().is_some_and(|byte| *byte > 127) { 0xFF } else { 0 }; 8];
        let Some(low) = number.get_mut(..bytes.len()) else {
            return self.push(Object::Other);
        };
        low.copy_from_slice(bytes);
        self.push(Object::Int(i64::from_le_bytes(number)))
    }

    fn stack_global(&mut self) -> Result<(), String> {
        let (name, module) = (self.pop()?, self.pop()?);
        match (&self.objects[module], &self.objects[name]) {
            (Object::Text(_), Object::Text(_)) => self.push(Object::Global(module, name)),
            _ => Err("a class has no name".to_owned()),
        }
    }

    fn call(&mut self) -> Result<(), String> {
        let (arguments, callable) = (self.pop()?, self.pop()?);
        let is_empty = matches!(&self.objects[arguments], Object::Items(items) if items.is_empty());
        let is_text = |id: Id, known: &str| matches!(&self.objects[id], Object::Text(text) if text == known);
        let is_dict = matches!(
            self.objects[callable],
            Object::Global(module, name) if is_text(module, "collections") && is_text(name, "OrderedDict")
        );
        self.push(match is_dict && is_empty {
            true => Object::Dict(Vec::new()),
            false => Object::Call(callable, arguments),
        })
    }

    /// Makes sure that one value more may be kept, wherever that is.
    fn make_room(&self) -> Result<(), String> {
        let n_kept = self.objects.len() + self.stack.len() + self.marks.len() + self.memo.len();
        if n_kept >= MAX_VALUES {
            return Err(format!("there are more than {MAX_VALUES} values"));
        }
        Ok(())
    }

    fn push(&mut self, object: Object) -> Result<(), String> {
        self.make_room()?;
        self.stack.push(self.objects.len());
        self.objects.push(object);
        Ok(())
    }

    fn top(&self) -> Result<Id, String> {
        let bottom = self.marks.last().copied().unwrap_or_default();
        let above = self.stack.get(bottom..).unwrap_or_default();
        above.last().copied().ok_or_else(|| "a value is missing".to_owned())
    }

    fn pop(&mut self) -> Result<Id, String> {
        let top = self.top()?;
        self.stack.pop();
        Ok(top)
    }

    fn pop_to_mark(&mut self) -> Result<Vec<Id>, String> {
        let mark = self.marks.pop().ok_or("a mark is missing")?;
        Ok(self.stack.split_off(mark.min(self.stack.len())))
    }

    fn append(&mut self, mut items: Vec<Id>) -> Result<(), String> {
        let top = self.top()?;
        match &mut self.objects[top] {
            Object::Items(list) => list.append(&mut items),
            _ => return Err("values are added to what is no list".to_owned()),
        }
        Ok(())
    }

    fn insert(&mut self, items: &[Id]) -> Result<(), String> {
        let top = self.top()?;
        let (pairs, rest) = items.as_chunks::<2>();
        match &mut self.objects[top] {
            Object::Dict(dict) if rest.is_empty() => {
                dict.extend(pairs.iter().map(|[key, value]| (*key, *value)));
            }
            _ => return Err("a key without a value, or outside a dictionary".to_owned()),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_dictionary_is_read_and_nothing_is_called() -> Result<(), String> {
        let bytes = b"\x80\x02ccollections\nOrderedDict\nq\0)Rq\x01(X\x01\0\0\0aK\x07X\x01\0\0\0bcos\nsystem\n(X\x02\0\0\0lstRu}X\x04\0\0\0_metK\x01sb.";
        let pickle = Pickle::read(bytes)?;
        let Object::Dict(pairs) = pickle.top() else { return Err(format!("{:?}", pickle.top())) };
        assert_eq!((pickle.text(pairs[0].0), pickle.count(pairs[0].1)), (Some("a"), Some(7)));
        let Object::Call(callable, arguments) = pickle.object(pairs[1].1) else {
            return Err("no call".to_owned());
        };
        assert_eq!(pickle.global(*callable), Some(("os", "system")));
        assert_eq!(pickle.items(*arguments).map(<[Id]>::len), Some(1));
        Ok(())
    }

    #[test]
    fn damaged_pickles_are_refused() {
        let nested = [&[b')'][..], &vec![0x85; 3_000_000], b"."].concat();
        assert!(Pickle::read(&nested).is_ok(), "as deep as it likes");
        for bytes in [
            &b""[..],
            b"R.",
            b".",
            b"t.",
            b"h\0.",
            b"X\xff\xff\xff\xffa",
            b"K\x01(a.",
            b"\x8a\x20",
            b"cab",
            b"}K\x01(K\x01u.",
            b"i",
        ] {
            assert!(Pickle::read(bytes).is_err(), "{bytes:?}");
        }
        let long = "a".repeat(MAX_TEXT_BYTES + 1);
        let text = |n: u32| [&b"X"[..], &n.to_le_bytes(), &long.as_bytes()[..n as usize]].concat();
        let (named, twice) = (text(MAX_TEXT_BYTES as u32), b"h\0h\0\x93".repeat(9));
        for (bytes, what) in [
            (text(MAX_TEXT_BYTES as u32 + 1), "a text has 1025 bytes"),
            (format!("c{long}\nb\n.").into_bytes(), "a name does not end within 1024 bytes"),
            ([&b"K\x01q\0"[..], &b"h\0".repeat(MAX_VALUES)].concat(), "more than 4194304 values"),
            (b"(".repeat(MAX_VALUES + 1), "more than 4194304 values"),
            ([&b"K\x01"[..], &b"\x94".repeat(MAX_VALUES)].concat(), "more than 4194304 values"),
        ] {
            let found = Pickle::read(&bytes).map(|_| ()).expect_err(what);
            assert!(found.contains(what), "{what}: {found}");
        }
        // A name that is used again takes no room again.
        let pickle = Pickle::read(&[&named[..], b"q\0", &twice, b"."].concat()).expect("names");
        assert_eq!(pickle.objects.iter().filter(|object| matches!(object, Object::Text(_))).count(), 1);
        assert_eq!(pickle.global(pickle.top), Some((&long[1..], &long[1..])));
        let pickle = Pickle::read(b"(K\x01K\x02t.").expect("a tuple");
        assert_eq!((pickle.counts(pickle.top, 2), pickle.counts(pickle.top, 1)), (Some(vec![1, 2]), None));
        assert_eq!(Pickle::read(b"\x8a\x01\xff.").map(|pickle| pickle.count(0)), Ok(None), "negative");
        assert_eq!(Pickle::read(b"\x8a\x02\x00\x01.").map(|pickle| pickle.count(0)), Ok(Some(256)));
    }
}
