package tcp

// ClosePipes forgets the pipes that are kept for use.
func (e *Engine) ClosePipes() { e.pipes.close() }
