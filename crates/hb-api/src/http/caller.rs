//! Who may call a route, as part of its signature: a handler that takes a [`Caller<Read>`] cannot be reached without the
//! scope `read`, and its path, query and body are not even looked at before.

use core::marker::PhantomData;
use std::sync::Arc;

use axum::extract::FromRequestParts;
use hb_wire::view::Scope;
use http::request::Parts;

use super::answer::Failure;
use crate::app::App;

/// A scope, as a type.
pub(super) trait Needs: Send + Sync + 'static {
    /// The scope.
    const SCOPE: Scope;
}

macro_rules! needs {
    ($($name:ident),*) => { $(
        /// The scope of that name.
        #[derive(Debug)]
        pub(super) struct $name;
        impl Needs for $name {
            const SCOPE: Scope = Scope::$name;
        }
    )* };
}

needs!(Admin, Operate, Read);

/// Somebody with a live API key that carries the scope.
#[derive(Debug)]
pub(super) struct Caller<N>(PhantomData<N>);

impl<N: Needs> FromRequestParts<Arc<App>> for Caller<N> {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, Failure> {
        app.authorize(&parts.headers, N::SCOPE).await?;
        Ok(Self(PhantomData))
    }
}
