//! What an answer other than the wanted one means to the person who asked.

use hb_wire::problem::{Code, Problem};
use http::header::LOCATION;
use http::{HeaderMap, Method};
use url::Url;

use crate::error::Failure;

/// The failure for a status that is no success, with the server's own words where it gave any.
pub(super) fn failure(
    status: u16,
    problem: Option<Problem>,
    method: &Method,
    url: &Url,
    headers: &HeaderMap,
) -> Failure {
    let server = url.origin().ascii_serialization();
    let Some(problem) = problem else { return foreign(status, &server, url, headers) };
    let said = said(&problem);
    let failure = match (status, problem.code) {
        (401, _) => Failure::refused(format!("{server} refused the API key: {said}")),
        (403, _) => Failure::refused(format!("{server} refused: {said}")),
        (503, _) | (_, Code::Unavailable) => Failure::unreachable(format!("{server} is not available: {said}")),
        (500.., _) => Failure::failed(format!("{server} failed: {said}")),
        // The same as a value that is refused here.
        (400 | 413 | 422, _) => Failure::usage(said),
        _ => Failure::failed(said),
    };
    // The server does not say which scope is missing.
    let scope = (status == 403).then(|| scope(method, url)).flatten();
    let scope = scope.map(|scope| format!("ask for a key with the scope {scope}: `hb keys create --scope {scope}`"));
    failure.hint(scope.or(problem.hint).unwrap_or_else(|| hint(status, problem.retry_after_s)))
}

/// The scope that a request needs, as the API describes it.
fn scope(method: &Method, url: &Url) -> Option<&'static str> {
    let (_, route) = url.path().rsplit_once("/v1/")?;
    let resource = route.split('/').next()?;
    match resource {
        "keys" | "tokens" => Some("admin"),
        "hosts" | "events" if *method == Method::GET => Some("read"),
        "hosts" | "channels" | "deliveries" => Some("operate"),
        _ => None,
    }
}

/// What happened this time, or else the title.
fn said(problem: &Problem) -> String {
    [problem.detail.as_str(), problem.title.as_str(), problem.code.title()]
        .into_iter()
        .find(|text| !text.is_empty())
        .unwrap_or_default()
        .to_owned()
}

fn hint(status: u16, retry_after_s: Option<u64>) -> String {
    match status {
        401 => "log in again with a key that works: `hb login`".to_owned(),
        403 => "use a key with the scope that this needs (`hb keys list` shows scopes)".to_owned(),
        429 | 503 => format!("try again in {} s", retry_after_s.unwrap_or(30)),
        500.. => "see the server's log".to_owned(),
        400 | 413 | 422 => "correct it and run the command again; --help shows what goes where".to_owned(),
        404 | 410 => "list what there is: `hb hosts list`, `hb channels list`, `hb deliveries list`".to_owned(),
        _ => "look at its present state first: somebody may have changed it meanwhile".to_owned(),
    }
}

/// An answer that hb-server did not write: a proxy's, or another program's.
fn foreign(status: u16, server: &str, url: &Url, headers: &HeaderMap) -> Failure {
    let prefix = url.path().rsplit_once("/v1/").map(|(prefix, _)| prefix).filter(|prefix| !prefix.is_empty());
    let to = headers.get(LOCATION).map(|to| String::from_utf8_lossy(to.as_bytes()));
    match (status, to) {
        (300..=399, Some(to)) => {
            Failure::unreachable(format!("{server} redirects to {to}")).hint("log in to that address: `hb login URL`")
        }
        (401 | 403 | 407, _) => Failure::refused(format!("{server} refused with HTTP {status}, not in hb's words"))
            .hint("check the proxy in front of the server"),
        (502..=504, _) => Failure::unreachable(format!("{server} is not available (HTTP {status})"))
            .hint("check that hb-server runs behind it, and try again"),
        _ => Failure::unreachable(format!("{server} answered HTTP {status}, not in hb's words")).hint(match prefix {
            Some(prefix) => {
                format!("check the server's URL: it was asked below {prefix}, which most servers do not have")
            }
            None => "check the server's URL: another program may be there".to_owned(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exit;

    fn check(status: u16, problem: Option<Problem>, exit: u8, rendered: &str) {
        let url = Url::parse("https://hb.example/v1/hosts").unwrap();
        let failure = failure(status, problem, &Method::POST, &url, &HeaderMap::new());
        assert_eq!((failure.exit, failure.to_string().as_str()), (exit, rendered));
    }

    #[test]
    fn a_problem_is_said_in_the_servers_words_with_the_code_that_fits() {
        let new = |code, detail: &str| Some(Problem::new(code, detail));
        check(
            401,
            new(Code::Unauthorized, ""),
            exit::REFUSED,
            "https://hb.example refused the API key: not authenticated\nhint: log in again with a key that works: `hb login`",
        );
        let forbidden = Problem::new(Code::Forbidden, "this needs the scope operate").hint("ask an admin");
        check(
            403,
            Some(forbidden),
            exit::REFUSED,
            "https://hb.example refused: this needs the scope operate\n\
             hint: ask for a key with the scope operate: `hb keys create --scope operate`",
        );
        check(
            404,
            new(Code::NotFound, "no such host"),
            exit::FAILED,
            "no such host\nhint: list what there is: `hb hosts list`, `hb channels list`, `hb deliveries list`",
        );
        check(
            409,
            Some(Problem::new(Code::NameTaken, "web1 is taken").hint("choose another")),
            exit::FAILED,
            "web1 is taken\nhint: choose another",
        );
        check(
            400,
            new(Code::Invalid, "name: it is empty"),
            exit::USAGE,
            "name: it is empty\nhint: correct it and run the command again; --help shows what goes where",
        );
        check(
            503,
            new(Code::Unavailable, "stopping"),
            exit::UNREACHABLE,
            "https://hb.example is not available: stopping\nhint: try again in 30 s",
        );
        check(500, new(Code::Internal, "x"), exit::FAILED, "https://hb.example failed: x\nhint: see the server's log");
    }

    #[test]
    fn the_scope_that_is_missing_is_the_one_that_the_route_needs() {
        for (method, path, expected) in [
            (Method::GET, "/v1/hosts?limit=1", Some("read")),
            (Method::GET, "/prefix/v1/events", Some("read")),
            (Method::PATCH, "/v1/hosts/x", Some("operate")),
            (Method::GET, "/v1/channels", Some("operate")),
            (Method::GET, "/v1/keys", Some("admin")),
            (Method::GET, "/metrics", None),
        ] {
            let url = Url::parse(&format!("https://hb.example{path}")).unwrap();
            assert_eq!(scope(&method, &url), expected, "{method} {path}");
        }
    }

    #[test]
    fn a_path_in_the_servers_url_is_named_when_nobody_answers_below_it() {
        let url = Url::parse("https://hb.example/status/v1/hosts").unwrap();
        let failure = failure(404, None, &Method::GET, &url, &HeaderMap::new());
        assert!(failure.hint.unwrap().contains("it was asked below /status"));
    }

    #[test]
    fn an_answer_of_another_program_is_told_from_the_servers_own() {
        check(
            404,
            None,
            exit::UNREACHABLE,
            "https://hb.example answered HTTP 404, not in hb's words\nhint: check the server's URL: another program may be there",
        );
        check(
            502,
            None,
            exit::UNREACHABLE,
            "https://hb.example is not available (HTTP 502)\nhint: check that hb-server runs behind it, and try again",
        );
    }
}
