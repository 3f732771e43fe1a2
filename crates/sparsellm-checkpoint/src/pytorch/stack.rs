//! The pickle machine's stack.

use super::{cursor::Step, value::Value};

/// The values, and the marks below which values are out of reach.
#[derive(Default)]
pub(super) struct Stack<'a> {
    values: Vec<Value<'a>>,
    /// The height of the stack at each MARK.
    marks: Vec<usize>,
}

impl<'a> Stack<'a> {
    /// Pushes a value.
    pub fn push(&mut self, value: Value<'a>) {
        self.values.push(value);
    }

    /// Sets a mark at the current height.
    pub fn mark(&mut self) {
        self.marks.push(self.values.len());
    }

    /// The number of values within reach, above the last mark.
    fn reach(&self) -> usize {
        self.values.len().saturating_sub(self.marks.last().copied().unwrap_or(0))
    }

    /// The top value.
    pub fn top(&self) -> Step<Value<'a>> {
        let top = self.values.last().filter(|_| self.reach() > 0);
        top.copied().ok_or_else(|| "the stack is empty".into())
    }

    /// Pops the top value.
    pub fn pop(&mut self) -> Step<Value<'a>> {
        let top = self.top()?;
        self.values.pop();
        Ok(top)
    }

    /// Pops the top `n` values.
    pub fn pop_many(&mut self, n: usize) -> Step<Vec<Value<'a>>> {
        if n > self.reach() {
            return Err("the stack has too few values".into());
        }
        Ok(self.values.split_off(self.values.len() - n))
    }

    /// Pops all values above the last mark, and the mark itself.
    pub fn pop_mark(&mut self) -> Step<Vec<Value<'a>>> {
        let mark = self.marks.pop().ok_or("there is no MARK")?;
        Ok(self.values.split_off(mark.min(self.values.len())))
    }
}
