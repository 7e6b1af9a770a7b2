//! `speechd openapi`: the document that `openapi/openapi.json` holds.

use super::output::print;
use crate::routes;

pub(super) fn run() -> anyhow::Result<()> {
    print(&(routes::document().to_pretty_json()? + "\n"))
}
