//! From the declaration of a struct to the implementation of a trait.

use proc_macro2::TokenStream;
use quote::{format_ident, quote, quote_spanned};
use syn::{
    Data, DeriveInput, Error, Fields, GenericParam, Ident, Index, Result, parse_quote,
    spanned::Spanned as _,
};

/// Which of the two traits.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Direction {
    Pack,
    Unpack,
}

impl Direction {
    fn trait_name(self) -> Ident {
        match self {
            Direction::Pack => format_ident!("TuplePack"),
            Direction::Unpack => format_ident!("TupleUnpack"),
        }
    }
}

/// The implementation, or what is wrong with the declaration.
pub(crate) fn implement(mut input: DeriveInput, direction: Direction) -> Result<TokenStream> {
    let trait_name = direction.trait_name();
    let fields = match &input.data {
        Data::Struct(data) => data.fields.clone(),
        Data::Enum(_) => {
            let message = format!(
                "`{trait_name}` can be derived for structs only: an enum has no encoding of its own \
                 in FoundationDB's format. Implement `{trait_name}` by hand, for example as a number \
                 or a string per variant (see the documentation of `TuplePack`)"
            );
            return Err(Error::new(input.ident.span(), message));
        }
        Data::Union(_) => {
            let message = format!("`{trait_name}` can be derived for structs only, not for unions");
            return Err(Error::new(input.ident.span(), message));
        }
    };
    // As the standard derives do it: what a field has of a parameter is not looked into.
    for parameter in &mut input.generics.params {
        if let GenericParam::Type(parameter) = parameter {
            parameter.bounds.push(parse_quote!(::ferrisdb_client::tuple::#trait_name));
        }
    }
    let name = &input.ident;
    let (generics, arguments, condition) = input.generics.split_for_impl();
    let method = match direction {
        Direction::Pack => pack(&fields),
        Direction::Unpack => unpack(&fields),
    };
    Ok(quote! {
        #[automatically_derived]
        impl #generics ::ferrisdb_client::tuple::#trait_name for #name #arguments #condition {
            #method
        }
    })
}

/// Whether the struct is its only field, and not the tuple of it.
fn is_newtype(fields: &Fields) -> bool {
    matches!(fields, Fields::Unnamed(fields) if fields.unnamed.len() == 1)
}

fn pack(fields: &Fields) -> TokenStream {
    let writes = fields.iter().enumerate().map(|(index, field)| {
        let index = Index::from(index);
        let place = field.ident.as_ref().map_or_else(|| quote!(#index), |name| quote!(#name));
        // A field's own span, so that the error about its type points at the field.
        quote_spanned! {field.ty.span()=>
            ::ferrisdb_client::tuple::TuplePack::pack_to(&self.#place, encoder)
        }
    });
    let body = if is_newtype(fields) {
        quote!(#(#writes)*)
    } else if fields.is_empty() {
        quote!(encoder.tuple(|_| ::core::result::Result::Ok(())))
    } else {
        quote! {
            encoder.tuple(|encoder| {
                #(#writes?;)*
                ::core::result::Result::Ok(())
            })
        }
    };
    quote! {
        fn pack_to(
            &self,
            encoder: &mut ::ferrisdb_client::tuple::Encoder,
        ) -> ::core::result::Result<(), ::ferrisdb_client::tuple::TupleError> {
            #body
        }
    }
}

fn unpack(fields: &Fields) -> TokenStream {
    let reads = fields.iter().map(|field| {
        let of_type = &field.ty;
        quote_spanned! {field.ty.span()=>
            <#of_type as ::ferrisdb_client::tuple::TupleUnpack>::unpack_from(decoder)?
        }
    });
    let value = match fields {
        Fields::Named(fields) => {
            let names = fields.named.iter().map(|field| &field.ident);
            quote!(Self { #(#names: #reads),* })
        }
        Fields::Unnamed(_) => quote!(Self(#(#reads),*)),
        Fields::Unit => quote!(Self),
    };
    let body = if is_newtype(fields) {
        quote!(::core::result::Result::Ok(#value))
    } else if fields.is_empty() {
        quote!(decoder.tuple(|_| ::core::result::Result::Ok(#value)))
    } else {
        quote!(decoder.tuple(|decoder| ::core::result::Result::Ok(#value)))
    };
    quote! {
        fn unpack_from(
            decoder: &mut ::ferrisdb_client::tuple::Decoder<'_>,
        ) -> ::core::result::Result<Self, ::ferrisdb_client::tuple::TupleError> {
            #body
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(input: DeriveInput, direction: Direction) -> String {
        let tokens = match implement(input, direction) {
            Ok(tokens) => tokens.to_string(),
            Err(error) => error.to_string(),
        };
        tokens.replace(' ', "")
    }

    #[test]
    fn a_struct_is_the_tuple_of_its_fields_and_a_newtype_what_it_holds() {
        let text_of_struct = text(
            parse_quote!(
                struct A {
                    b: u8,
                    c: u8,
                }
            ),
            Direction::Pack,
        );
        assert!(text_of_struct.contains("encoder.tuple("), "{text_of_struct}");
        assert!(text_of_struct.contains("&self.b"), "{text_of_struct}");
        let text_of_newtype = text(
            parse_quote!(
                struct A(u8);
            ),
            Direction::Pack,
        );
        assert!(!text_of_newtype.contains("tuple("), "{text_of_newtype}");
        let text_of_unit = text(
            parse_quote!(
                struct A;
            ),
            Direction::Unpack,
        );
        assert!(text_of_unit.contains("decoder.tuple("), "{text_of_unit}");
    }

    #[test]
    fn type_parameters_are_bounded() {
        let generic = parse_quote!(
            struct A<'a, T: Clone, const N: usize>(&'a T, [u8; N]);
        );
        let text = text(generic, Direction::Pack);
        assert!(text.contains("T:Clone+::ferrisdb_client::tuple::TuplePack"), "{text}");
    }

    #[test]
    fn what_cannot_be_derived_is_explained() {
        for direction in [Direction::Pack, Direction::Unpack] {
            let error = implement(
                parse_quote!(
                    enum A {
                        B,
                    }
                ),
                direction,
            )
            .unwrap_err()
            .to_string();
            assert!(error.contains("structs only"), "{error}");
            assert!(error.contains("by hand"), "{error}");
            let error = implement(parse_quote!(union A { b: u8 }), direction).unwrap_err();
            assert!(error.to_string().contains("unions"), "{error}");
        }
    }
}
