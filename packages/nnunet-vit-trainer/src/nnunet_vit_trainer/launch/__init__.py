"""Start a training: check what was asked, prepare it, train one fold, in one process or several."""
