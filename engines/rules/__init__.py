"""Policy rules, one pure tensor function a file, found by file name; no engine and no request."""
