//! Reading queries and paths: every parameter is known, stands once (unless it may repeat), and is what it should be.

use core::str::FromStr;
use std::sync::Arc;

use axum::extract::{FromRequestParts, Path, Query};
use hb_wire::problem::{Code, Problem};
use http::request::Parts;

use super::answer::Failure;
use super::body::shown;
use crate::app::App;

/// Entries on a page that asks for no number.
pub const LIMIT_DEFAULT: usize = 100;
/// Most entries on a page.
pub const LIMIT_MAX: usize = hb_store::PAGE_MAX;
/// Most parameters in a query.
const PARAMS_MAX: usize = 64;

/// The parameters of a query that nobody has taken yet.
#[derive(Debug)]
pub(super) struct Params(Vec<(String, String)>);

impl Params {
    fn read(parts: &Parts) -> Result<Self, Problem> {
        let Query(pairs) = Query::<Vec<(String, String)>>::try_from_uri(&parts.uri)
            .map_err(|_| bad("the query cannot be read: it must be name=value pairs in UTF-8"))?;
        if pairs.len() > PARAMS_MAX {
            return Err(bad(format!("the query has more than {PARAMS_MAX} parameters")));
        }
        Ok(Self(pairs))
    }

    /// Every value of a parameter that may repeat.
    pub(super) fn all(&mut self, name: &str) -> Vec<String> {
        let (taken, left) = core::mem::take(&mut self.0).into_iter().partition(|(found, _)| found == name);
        self.0 = left;
        let taken: Vec<(String, String)> = taken;
        taken.into_iter().map(|(_, value)| value).collect()
    }

    /// The value of a parameter that stands at most once.
    pub(super) fn one(&mut self, name: &str) -> Result<Option<String>, Problem> {
        let mut values = self.all(name);
        match values.len() {
            0 | 1 => Ok(values.pop()),
            _ => Err(bad(format!("the parameter {name} stands more than once"))),
        }
    }

    /// As [`Params::one`], parsed. `expected` says what it should be.
    pub(super) fn parsed<T: FromStr>(&mut self, name: &str, expected: &str) -> Result<Option<T>, Problem> {
        self.one(name)?
            .map(|value| value.parse().map_err(|_| bad(format!("{name}={} is not {expected}", shown(&value)))))
            .transpose()
    }

    /// How many entries are wanted.
    pub(super) fn limit(&mut self) -> Result<usize, Problem> {
        let expected = format!("a number from 1 to {LIMIT_MAX}");
        let limit = self.parsed("limit", &expected)?.unwrap_or(LIMIT_DEFAULT);
        if (1..=LIMIT_MAX).contains(&limit) { Ok(limit) } else { Err(bad(format!("limit={limit} is not {expected}"))) }
    }

    /// Refuses what nobody took.
    pub(super) fn finish(self) -> Result<(), Problem> {
        match self.0.first() {
            None => Ok(()),
            Some((name, _)) => Err(bad(format!("the parameter {} is not known here", shown(name)))),
        }
    }
}

/// A parameter, or its value, that is not acceptable.
pub(crate) fn bad(detail: impl Into<String>) -> Problem {
    Problem::new(Code::Malformed, detail)
}

impl FromRequestParts<Arc<App>> for Params {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, _: &Arc<App>) -> Result<Self, Failure> {
        Ok(Self::read(parts)?)
    }
}

/// A route that takes no query.
#[derive(Debug)]
pub(super) struct NoQuery;

impl FromRequestParts<Arc<App>> for NoQuery {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, _: &Arc<App>) -> Result<Self, Failure> {
        Params::read(parts)?.finish()?;
        Ok(Self)
    }
}

/// The `{id}` of a path.
#[derive(Debug)]
pub(super) struct Id<T>(pub(super) T);

impl<T: FromStr> FromRequestParts<Arc<App>> for Id<T> {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, Failure> {
        let Path(text) =
            Path::<String>::from_request_parts(parts, app).await.map_err(|_| bad("the id in the path is not UTF-8"))?;
        let id = text.parse().map_err(|_| {
            bad(format!("\"{}\" is not an id, which looks like 0199c2a4-5d1e-7b3a-9f00-1234567890ab", shown(&text)))
        })?;
        Ok(Self(id))
    }
}
