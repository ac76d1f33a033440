"""What several packages' tests share: made-up bundles, real servers, a fake server."""
