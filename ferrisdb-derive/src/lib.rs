//! `#[derive(TuplePack, TupleUnpack)]` for `ferrisdb_client::tuple`.
//!
//! ```text
//!   struct Visit { user: u64, page: String }     the tuple of the fields, in the order of the source
//!   struct Point(f64, f64);                      the same
//!   struct UserId(u64);                          the value inside: transparent
//!   struct Marker;                               the empty tuple
//!   enum, union                                  an error that says what to do instead
//! ```
//!
//! Used through the re-exports of `ferrisdb_client::tuple` (feature `derive`), where the examples are. Knows
//! nothing of the encoding: what it writes calls the traits' methods for every field.

use proc_macro::TokenStream;
use syn::{DeriveInput, parse_macro_input};

mod expand;

use expand::Direction;

/// Implements `TuplePack` for a struct all of whose fields are `TuplePack`.
#[proc_macro_derive(TuplePack)]
pub fn derive_tuple_pack(input: TokenStream) -> TokenStream {
    derive(parse_macro_input!(input as DeriveInput), Direction::Pack)
}

/// Implements `TupleUnpack` for a struct all of whose fields are `TupleUnpack`.
#[proc_macro_derive(TupleUnpack)]
pub fn derive_tuple_unpack(input: TokenStream) -> TokenStream {
    derive(parse_macro_input!(input as DeriveInput), Direction::Unpack)
}

fn derive(input: DeriveInput, direction: Direction) -> TokenStream {
    expand::implement(input, direction).unwrap_or_else(syn::Error::into_compile_error).into()
}
