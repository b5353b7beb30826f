//! Enrolment tokens: made, listed, revoked.

use hb_core::access::Token;
use hb_core::time::seconds;
use hb_wire::api_key::SecretKind;
use hb_wire::name::Tags;
use hb_wire::problem::{Code, Problem};
use hb_wire::view::{TokenRequest, TokenView};

use crate::app::{App, store_problem, timestamp};
use crate::hosts::{bad_text, bounded, invalid};
use crate::keys::full;

/// Most hosts that one token may enrol.
pub const USES_MAX: u32 = 10_000;
/// Shortest and longest life of a token, in seconds.
pub const LIFE_S: core::ops::RangeInclusive<u64> = 60..=90 * 86_400;
/// Life of a token that asks for none, in seconds.
pub const LIFE_DEFAULT_S: u64 = 3600;
/// Most tokens that are not forgotten yet.
pub const TOKENS_MAX: usize = 10_000;
/// How often a new id is drawn because the last one is taken.
const DRAWS_MAX: usize = 4;

impl App {
    /// Makes an enrolment token. Its secret stands in this answer and nowhere else.
    pub async fn create_token(&self, request: &TokenRequest) -> Result<TokenView, Problem> {
        let uses = request.uses.unwrap_or(1);
        if !(1..=USES_MAX).contains(&uses) {
            return Err(invalid(format!("uses: {uses} is not between 1 and {USES_MAX}")));
        }
        let life_s = bounded("expires_in_s", request.expires_in_s.unwrap_or(LIFE_DEFAULT_S), &LIFE_S)?;
        let tags = Tags::parse(request.tags.clone()).map_err(|error| bad_text("tags", &error))?;
        let now = self.clock.now();
        if self.store.tokens(now).await.map_err(|error| store_problem(&error))?.len() >= TOKENS_MAX {
            return Err(full("tokens", TOKENS_MAX));
        }
        for _ in 0..DRAWS_MAX {
            let secret = self.mint(SecretKind::Token);
            let token = Token {
                id: secret.id().to_owned(),
                hash: secret.hash(),
                uses_left: uses,
                tags: tags.clone(),
                created_at: now,
                expires_at: now.plus(seconds(life_s)),
                revoked_at: None,
                redeemed: Vec::new(),
            };
            if self.store.add_token(&token).await.map_err(|error| store_problem(&error))? {
                return Ok(TokenView { secret: Some(secret.expose().to_owned()), ..token_view(&token) });
            }
        }
        Err(Problem::new(Code::Internal, "no free id was found for the token"))
    }

    /// Every token that is neither spent nor expired.
    pub async fn list_tokens(&self) -> Result<Vec<TokenView>, Problem> {
        let now = self.clock.now();
        let tokens = self.store.tokens(now).await.map_err(|error| store_problem(&error))?;
        Ok(tokens.iter().filter(|token| token.uses_left > 0 && now < token.expires_at).map(token_view).collect())
    }

    /// Revokes a token. Doing it again changes nothing.
    pub async fn revoke_token(&self, id: &str) -> Result<(), Problem> {
        if self.store.revoke_token(id, self.clock.now()).await.map_err(|error| store_problem(&error))? {
            return Ok(());
        }
        match self.store.token(id).await.map_err(|error| store_problem(&error))? {
            Some(_) => Ok(()),
            None => {
                Err(Problem::new(Code::NotFound, "there is no such token").hint("`hb tokens list` shows their ids"))
            }
        }
    }
}

fn token_view(token: &Token) -> TokenView {
    TokenView {
        id: token.id.clone(),
        uses_left: token.uses_left,
        created_at: timestamp(token.created_at),
        expires_at: timestamp(token.expires_at),
        tags: token.tags.as_map().clone(),
        revoked: token.revoked_at.is_some(),
        secret: None,
    }
}
