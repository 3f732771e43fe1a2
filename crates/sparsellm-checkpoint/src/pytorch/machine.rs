//! Interprets the pickle of a state dict. Nothing is executed: instructions only assemble
//! values of the few kinds in [`Value`].

use super::{
    cursor::{Cursor, Step, shown, size},
    opcode as op,
    stack::Stack,
    value::{Class, Storage, Tensor, Value, number},
    zip::Archive,
};
use std::collections::HashMap;

/// Far more instructions (about 30 per tensor) than any model's file has. Each creates at
/// most one value or memo entry, so this bounds the memory as well.
const MOST_INSTRUCTIONS: usize = 1 << 22;
/// The maximum length of a storage key; `torch.save` uses small numbers as keys.
const LONGEST_KEY: usize = 32;

/// A named tensor of the state dict.
pub(super) type Named<'a> = (&'a str, Tensor);

struct Machine<'a, 'b> {
    archive: &'b Archive<'a>,
    code: Cursor<'a>,
    stack: Stack<'a>,
    memo: HashMap<u32, Value<'a>>,
    items: Vec<Value<'a>>,
    dicts: Vec<Vec<(Value<'a>, Value<'a>)>>,
    tensors: Vec<Tensor>,
}

/// Returns the tensors of the state dict in `pickle`, the archive's `data.pkl`.
pub(super) fn run<'a>(archive: &Archive<'a>, pickle: &'a [u8]) -> Step<Vec<Named<'a>>> {
    let mut machine = Machine {
        archive,
        code: Cursor::new(pickle, 0)?,
        stack: Stack::default(),
        memo: HashMap::new(),
        items: Vec::new(),
        dicts: Vec::new(),
        tensors: Vec::new(),
    };
    for _ in 0..MOST_INSTRUCTIONS {
        let at = machine.code.at();
        let located = |what| format!("byte {at} of its data.pkl: {what}");
        if machine.step().map_err(located)? {
            return machine.result();
        }
    }
    Err(format!("its data.pkl has more than {MOST_INSTRUCTIONS} instructions"))
}

impl<'a> Machine<'a, '_> {
    /// Executes one instruction; returns true after the last one.
    fn step(&mut self) -> Step<bool> {
        let at = self.code.at();
        let code = self.code.u8()?;
        if (at == 0) != (code == op::PROTO) {
            return Err("a pickle begins, once, with its protocol's number".into());
        }
        match code {
            op::PROTO => match self.code.u8()? {
                2..=5 => {}
                n => return Err(format!("pickle protocol {n} is not read; 2 to 5 are")),
            },
            op::FRAME => self.code.u64().map(drop)?,
            op::STOP => return Ok(true),
            op::MARK => self.stack.mark(),
            op::NONE => self.stack.push(Value::None),
            op::NEWTRUE | op::NEWFALSE => self.stack.push(Value::Bool),
            op::BININT | op::BININT1 | op::BININT2 | op::LONG1 => self.int(code)?,
            op::BINUNICODE | op::SHORT_BINUNICODE => self.text(code)?,
            op::EMPTY_TUPLE | op::TUPLE1 | op::TUPLE2 | op::TUPLE3 | op::TUPLE => {
                self.tuple(code)?;
            }
            op::EMPTY_DICT => self.new_dict(),
            op::SETITEM => {
                let values = self.stack.pop_many(2)?;
                self.set_items(&values)?;
            }
            op::SETITEMS => {
                let values = self.stack.pop_mark()?;
                self.set_items(&values)?;
            }
            op::BINPUT | op::LONG_BINPUT | op::MEMOIZE => self.put(code)?,
            op::BINGET | op::LONG_BINGET => self.get(code)?,
            op::GLOBAL | op::STACK_GLOBAL => self.class(code)?,
            op::BINPERSID => {
                let storage = self.storage()?;
                self.stack.push(Value::Storage(storage));
            }
            op::REDUCE => self.reduce()?,
            op::BUILD => self.build()?,
            other => {
                return Err(format!(
                    "instruction {} (0x{other:02x}) is not one that a state dict of tensors has; \
                     {SAVE_WEIGHTS}",
                    op::name(other)
                ));
            }
        }
        Ok(false)
    }

    /// Pushes an int, which has one of three fixed sizes or is prefixed by its length.
    fn int(&mut self, code: u8) -> Step<()> {
        let n = match code {
            op::BININT => self.code.i32()?.into(),
            op::BININT1 => self.code.u8()?.into(),
            op::BININT2 => self.code.u16()?.into(),
            _ => self.long()?,
        };
        self.stack.push(Value::Int(n));
        Ok(())
    }

    fn long(&mut self) -> Step<i64> {
        let n = usize::from(self.code.u8()?);
        let bytes = self.code.take(n)?;
        // Little-endian two's complement; no bytes at all mean zero.
        let fill = if bytes.last().is_some_and(|b| b & 0x80 != 0) { 0xff } else { 0 };
        let mut full = [fill; 8];
        let low = full.get_mut(..n).ok_or_else(|| format!("an int of {n} bytes"))?;
        low.copy_from_slice(bytes);
        Ok(i64::from_le_bytes(full))
    }

    /// Pushes a string, whose length is stored in one byte or four.
    fn text(&mut self, code: u8) -> Step<()> {
        let n = match code {
            op::SHORT_BINUNICODE => self.code.u8()?.into(),
            _ => self.code.u32()?,
        };
        let text = self.code.text(size(n.into())?)?;
        self.stack.push(Value::Text(text));
        Ok(())
    }

    /// Pushes a tuple: empty, of the top one to three values, or of all values above the
    /// mark.
    fn tuple(&mut self, code: u8) -> Step<()> {
        let values = match code {
            op::EMPTY_TUPLE => Vec::new(),
            op::TUPLE => self.stack.pop_mark()?,
            _ => self.stack.pop_many(usize::from(code - op::TUPLE1) + 1)?,
        };
        let start = self.items.len();
        self.items.extend(values);
        self.stack.push(Value::Tuple(start, self.items.len()));
        Ok(())
    }

    fn new_dict(&mut self) {
        self.stack.push(Value::Dict(self.dicts.len()));
        self.dicts.push(Vec::new());
    }

    /// Adds keys and values to the dict on top of the stack.
    fn set_items(&mut self, values: &[Value<'a>]) -> Step<()> {
        let (pairs, []) = values.as_chunks::<2>() else {
            return Err("a key without a value".into());
        };
        match self.stack.top()? {
            Value::Dict(i) => {
                let dict = self.dicts.get_mut(i).ok_or("no such dict")?;
                dict.extend(pairs.iter().map(|&[key, value]| (key, value)));
                Ok(())
            }
            other => Err(format!("items set in {}, not a dict", other.kind())),
        }
    }

    /// Stores the top value in the memo.
    fn put(&mut self, code: u8) -> Step<()> {
        let n = match code {
            op::BINPUT => self.code.u8()?.into(),
            op::LONG_BINPUT => self.code.u32()?,
            _ => u32::try_from(self.memo.len()).map_err(|_| "the memo is full")?,
        };
        let top = self.stack.top()?;
        self.memo.insert(n, top);
        Ok(())
    }

    /// Pushes a value from the memo.
    fn get(&mut self, code: u8) -> Step<()> {
        let n = match code {
            op::BINGET => self.code.u8()?.into(),
            _ => self.code.u32()?,
        };
        let value = self.memo.get(&n).ok_or_else(|| format!("memo {n} was never set"))?;
        self.stack.push(*value);
        Ok(())
    }

    /// Pushes a class, which is named in the code or on the stack.
    fn class(&mut self, code: u8) -> Step<()> {
        let (module, name) = if code == op::GLOBAL {
            (self.code.line()?, self.code.line()?)
        } else {
            let (name, module) = (self.stack.pop()?, self.stack.pop()?);
            let (Value::Text(module), Value::Text(name)) = (module, name) else {
                return Err(format!("a class named by {} and {}", module.kind(), name.kind()));
            };
            (module, name)
        };
        self.stack.push(Value::Class(Class::find(module, name)?));
        Ok(())
    }

    /// The values of a tuple.
    fn values(&self, tuple: Value) -> Step<&[Value<'a>]> {
        match tuple {
            Value::Tuple(start, end) => {
                self.items.get(start..end).ok_or_else(|| "no such tuple".into())
            }
            other => Err(format!("{} where a tuple belongs", other.kind())),
        }
    }

    /// Resolves the persistent id on top of the stack to its storage.
    fn storage(&mut self) -> Step<Storage> {
        let id = self.stack.pop()?;
        let &[Value::Text("storage"), class, Value::Text(key), Value::Text(_), elements] =
            self.values(id)?
        else {
            return Err(
                "a persistent id that is not (\"storage\", class, key, device, size)".into()
            );
        };
        let Value::Class(Class::Storage(dtype, size)) = class else {
            return Err(format!("the storage's class is {}", class.kind()));
        };
        let elements = number(elements, "storage's size")?;
        let known = Some(key).filter(|key| key.len() <= LONGEST_KEY);
        let Some(bytes) = known.and_then(|key| self.archive.range(&format!("data/{key}"))) else {
            return Err(format!("storage {} is not in the file", shown(key)));
        };
        if elements.checked_mul(size).is_none_or(|n| n > bytes.len()) {
            return Err(format!(
                "storage {key} should have {elements} elements of {size} bytes, but has {} bytes",
                bytes.len()
            ));
        }
        Ok(Storage { dtype, size, start: bytes.start, elements })
    }

    /// Replaces the function below the top and its arguments on top by the result of the
    /// call.
    fn reduce(&mut self) -> Step<()> {
        let (arguments, function) = (self.stack.pop()?, self.stack.pop()?);
        match (function, self.values(arguments)?) {
            (Value::Class(Class::OrderedDict), &[]) => self.new_dict(),
            (
                Value::Class(Class::RebuildTensor),
                &[
                    Value::Storage(storage),
                    offset,
                    shape,
                    strides,
                    _grad,
                    _hooks,
                    ref metadata @ ..,
                ],
            ) => {
                // A seventh argument can request that the values be negated.
                let plain = match *metadata {
                    [] | [Value::None] => true,
                    [Value::Dict(i)] => self.dicts.get(i).is_some_and(Vec::is_empty),
                    _ => false,
                };
                if !plain {
                    return Err(format!(
                        "{}conjugated or negated views are not read",
                        self.whose()
                    ));
                }
                let tensor = self
                    .values(shape)
                    .and_then(|shape| Tensor::view(storage, offset, shape, self.values(strides)?))
                    .map_err(|what| format!("{}{what}", self.whose()))?;
                self.stack.push(Value::Tensor(self.tensors.len()));
                self.tensors.push(tensor);
            }
            (
                Value::Class(Class::RebuildParameter),
                &[tensor @ Value::Tensor(_), _grad, _hooks],
            ) => {
                self.stack.push(tensor);
            }
            (Value::Class(class), values) => {
                return Err(format!("{class:?} with {} arguments it does not take", values.len()));
            }
            (other, _) => return Err(format!("a call of {}", other.kind())),
        }
        Ok(())
    }

    /// Names the tensor being built, for error messages: its key lies below it on the stack.
    fn whose(&self) -> String {
        match self.stack.top() {
            Ok(Value::Text(name)) => format!("tensor {}: ", shown(name)),
            _ => String::new(),
        }
    }

    /// Sets an attribute of an OrderedDict: only `_metadata` is allowed, and it is ignored.
    fn build(&mut self) -> Step<()> {
        let (state, object) = (self.stack.pop()?, self.stack.top()?);
        let pairs = match (object, state) {
            (Value::Dict(_), Value::Dict(i)) => self.dicts.get(i).map(Vec::as_slice),
            _ => None,
        };
        match pairs {
            Some([(Value::Text("_metadata"), _)]) => Ok(()),
            _ => Err(format!(
                "{} with attributes other than a dict's _metadata; {SAVE_WEIGHTS}",
                object.kind()
            )),
        }
    }

    /// The result that STOP leaves: a dict of tensors.
    fn result(mut self) -> Step<Vec<Named<'a>>> {
        let root = self.stack.pop()?;
        let Value::Dict(i) = root else {
            return Err(format!("it holds {}, not a state dict; {SAVE_WEIGHTS}", root.kind()));
        };
        let pairs = self.dicts.get(i).ok_or("no such dict")?;
        let named = |&(key, value): &(Value<'a>, Value<'a>)| match (key, value) {
            (Value::Text(name), Value::Tensor(i)) => {
                let tensor = self.tensors.get(i).ok_or("no such tensor")?;
                Ok((name, tensor.clone()))
            }
            (Value::Text(name), other) => Err(format!(
                "entry {} is {}, not a tensor; {SAVE_WEIGHTS}",
                shown(name),
                other.kind()
            )),
            (other, _) => Err(format!("a key of its state dict is {}, not a string", other.kind())),
        };
        pairs.iter().map(named).collect()
    }
}

const SAVE_WEIGHTS: &str = "save only the weights: torch.save(model.state_dict(), …)";
