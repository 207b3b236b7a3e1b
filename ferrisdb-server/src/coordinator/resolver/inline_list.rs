//! Lists that lie within what they are a part of, instead of somewhere else in memory.

use std::ops::{Deref, DerefMut, Range};

/// What a list of either kind can do: [`Vec`], which has no bound, and [`InlineList`], which costs no cache miss to find.
pub(super) trait List<T>: Default + Deref<Target = [T]> + DerefMut {
    /// Adds an item before the one at `index`.
    fn insert(&mut self, index: usize, item: T);
    /// Removes the items of a range of indexes.
    fn remove(&mut self, range: Range<usize>);
    /// Adds items to the end.
    fn extend_from_slice(&mut self, items: &[T]);
    /// About how much memory the items take outside of the list itself, in bytes.
    fn memory_bytes(&self) -> usize;
}

impl<T: Copy> List<T> for Vec<T> {
    fn insert(&mut self, index: usize, item: T) {
        Vec::insert(self, index, item);
    }

    fn remove(&mut self, range: Range<usize>) {
        self.drain(range);
    }

    fn extend_from_slice(&mut self, items: &[T]) {
        Vec::extend_from_slice(self, items);
    }

    fn memory_bytes(&self) -> usize {
        self.capacity() * size_of::<T>()
    }
}

/// A list of at most `MAX` items.
#[derive(Clone, Debug)]
#[repr(C)]
pub(super) struct InlineList<T, const MAX: usize> {
    len: usize,
    /// Those from `len` on mean nothing.
    items: [T; MAX],
}

impl<T: Copy + Default, const MAX: usize> Default for InlineList<T, MAX> {
    fn default() -> InlineList<T, MAX> {
        InlineList { len: 0, items: [T::default(); MAX] }
    }
}

impl<T, const MAX: usize> Deref for InlineList<T, MAX> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        &self.items[..self.len]
    }
}

impl<T, const MAX: usize> DerefMut for InlineList<T, MAX> {
    fn deref_mut(&mut self) -> &mut [T] {
        &mut self.items[..self.len]
    }
}

impl<T: Copy + Default, const MAX: usize> List<T> for InlineList<T, MAX> {
    fn insert(&mut self, index: usize, item: T) {
        self.items.copy_within(index..self.len, index + 1);
        self.items[index] = item;
        self.len += 1;
    }

    fn remove(&mut self, range: Range<usize>) {
        self.items.copy_within(range.end..self.len, range.start);
        self.len -= range.len();
    }

    fn extend_from_slice(&mut self, items: &[T]) {
        self.items[self.len..self.len + items.len()].copy_from_slice(items);
        self.len += items.len();
    }

    fn memory_bytes(&self) -> usize {
        0
    }
}
