//! What comes in from C and goes out to it: pointers.
//!
//! Each function here is as safe as the program that calls the library keeps to the interface: pointers are those that it was
//! given, are not used after they were destroyed, and lengths are true.

use std::{
    ffi::{CStr, c_char, c_int},
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use crate::errors::{self, Code};

/// Runs a function of the interface. A panic ends here.
pub fn guarded(call: impl FnOnce() -> Result<(), Code>) -> Code {
    match catch_unwind(AssertUnwindSafe(call)) {
        Ok(Ok(())) => errors::SUCCESS,
        Ok(Err(code)) => code,
        Err(_) => errors::INTERNAL_ERROR,
    }
}

/// Runs a function that returns something else; a panic becomes `otherwise`.
pub fn guarded_or<T>(otherwise: T, call: impl FnOnce() -> T) -> T {
    catch_unwind(AssertUnwindSafe(call)).unwrap_or(otherwise)
}

/// Gives an object to the program, until it destroys it.
pub fn lend<T>(object: Arc<T>) -> *mut T {
    Arc::into_raw(object).cast_mut()
}

/// The object behind a pointer; `client_invalid_operation` for null.
///
/// # Safety
///
/// The pointer is null, or comes from [`lend`] and was not taken back.
///
/// # Errors
///
/// See above.
pub unsafe fn borrow<T>(pointer: *const T) -> Result<Arc<T>, Code> {
    if pointer.is_null() {
        return Err(errors::CLIENT_INVALID_OPERATION);
    }
    // SAFETY: it comes from `Arc::into_raw`, and the program still owns that count.
    unsafe {
        Arc::increment_strong_count(pointer);
        Ok(Arc::from_raw(pointer))
    }
}

/// Takes an object back from the program; `None` for null.
///
/// # Safety
///
/// The pointer is null, or comes from [`lend`] and is not used any more.
pub unsafe fn take_back<T>(pointer: *const T) -> Option<Arc<T>> {
    if pointer.is_null() {
        return None;
    }
    // SAFETY: it comes from `Arc::into_raw`, and this is the program's count.
    Some(unsafe { Arc::from_raw(pointer) })
}

/// The bytes that a pointer and a length stand for.
///
/// # Safety
///
/// So many bytes can be read there as long as the result is used.
///
/// # Errors
///
/// `client_invalid_operation` for a negative length, or for null with any other length than zero.
pub unsafe fn bytes<'a>(pointer: *const u8, length: c_int) -> Result<&'a [u8], Code> {
    let length = usize::try_from(length).map_err(|_| errors::CLIENT_INVALID_OPERATION)?;
    if length == 0 {
        return Ok(&[]);
    }
    if pointer.is_null() {
        return Err(errors::CLIENT_INVALID_OPERATION);
    }
    // SAFETY: the caller vouches for it.
    Ok(unsafe { std::slice::from_raw_parts(pointer, length) })
}

/// The value of an option: `None` if there is no value at all.
///
/// # Safety
///
/// As for [`bytes`].
///
/// # Errors
///
/// `invalid_option_value` for a negative length.
pub unsafe fn option_value<'a>(
    pointer: *const u8,
    length: c_int,
) -> Result<Option<&'a [u8]>, Code> {
    if pointer.is_null() && length <= 0 {
        return Ok(None);
    }
    // SAFETY: the caller vouches for it.
    unsafe { bytes(pointer, length) }.map(Some).map_err(|_| errors::INVALID_OPTION_VALUE)
}

/// A text that ends with a zero; `None` for null.
///
/// # Safety
///
/// The pointer is null, or such a text is there as long as the result is used.
pub unsafe fn text<'a>(pointer: *const c_char) -> Option<&'a CStr> {
    if pointer.is_null() {
        return None;
    }
    // SAFETY: the caller vouches for it.
    Some(unsafe { CStr::from_ptr(pointer) })
}

/// Writes a result to where the program wants it, however it is aligned there. Null is a result that is not wanted.
///
/// # Safety
///
/// The pointer is null, or a `T` can be written there.
pub unsafe fn put<T>(out: *mut T, value: T) {
    if !out.is_null() {
        // SAFETY: the caller vouches for it.
        unsafe { out.write_unaligned(value) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects_live_until_they_are_taken_back() {
        let object = Arc::new(7);
        let pointer = lend(Arc::clone(&object));
        // SAFETY: from `lend`, and not taken back yet.
        assert_eq!(*unsafe { borrow(pointer) }.unwrap(), 7);
        assert_eq!(Arc::strong_count(&object), 2);
        // SAFETY: from `lend`, and not used any more.
        drop(unsafe { take_back(pointer) });
        assert_eq!(Arc::strong_count(&object), 1);
        // SAFETY: null.
        assert!(unsafe { borrow::<i32>(std::ptr::null()) }.is_err());
        // SAFETY: null.
        assert!(unsafe { take_back::<i32>(std::ptr::null()) }.is_none());
    }

    #[test]
    fn bytes_may_be_missing_only_if_there_are_none() {
        let data = [1, 2, 3];
        // SAFETY: the pointers are null, or those of `data` with at most its length.
        unsafe {
            assert_eq!(bytes(data.as_ptr(), 3), Ok(&data[..]));
            assert_eq!(bytes(std::ptr::null(), 0), Ok(&[][..]));
            assert_eq!(bytes(std::ptr::null(), 1), Err(errors::CLIENT_INVALID_OPERATION));
            assert_eq!(bytes(data.as_ptr(), -1), Err(errors::CLIENT_INVALID_OPERATION));
            assert_eq!(option_value(std::ptr::null(), 0), Ok(None));
            assert_eq!(option_value(data.as_ptr(), 0), Ok(Some(&[][..])));
        }
    }

    #[test]
    fn no_panic_passes() {
        assert_eq!(guarded(|| panic!("on purpose")), errors::INTERNAL_ERROR);
        assert_eq!(guarded(|| Err(1020)), 1020);
        assert_eq!(guarded_or(5, || panic!("on purpose")), 5);
    }
}
