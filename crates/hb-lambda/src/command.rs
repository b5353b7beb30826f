//! What an operator may have a function do by invoking it directly, which AWS lets only those do who may
//! (`lambda:InvokeFunction`): so the first key needs no secret in a template.

use hb_api::app::App;
use hb_wire::view::{KeyRequest, KeyView, Scope};
use serde::Deserialize;

use crate::Error;

/// A command to `api`, as `{"hb": "create-admin-key", "name": "…"}`.
#[derive(Debug, Deserialize)]
#[serde(tag = "hb", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Command {
    /// A key that may do everything; its secret stands in the answer, and nowhere else.
    CreateAdminKey {
        /// Its name.
        name: String,
    },
}

impl Command {
    /// Does it.
    ///
    /// # Errors
    /// Why not.
    pub async fn run(self, app: &App) -> Result<KeyView, Error> {
        let Self::CreateAdminKey { name } = self;
        let request = KeyRequest { name, scopes: vec![Scope::Admin], expires_in_s: None };
        app.create_key(&request).await.map_err(|problem| problem.detail.into())
    }
}
