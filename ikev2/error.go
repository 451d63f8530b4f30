package ikev2

import "fmt"

// A ParseError says where a message is malformed.
type ParseError struct {
	// Offset is where, in octets from the start of what was parsed: of the
	// message for its header and the chain of its payloads, of a payload's body
	// for what is within.
	Offset int
	// Field is what should have been there.
	Field string
	// Problem says what is wrong with it. It never contains input but numbers.
	Problem string
}

func (e *ParseError) Error() string {
	return fmt.Sprintf("ikev2: offset %d: %s: %s", e.Offset, e.Field, e.Problem)
}

func parseError(offset int, field, format string, a ...any) error {
	return &ParseError{Offset: offset, Field: field, Problem: fmt.Sprintf(format, a...)}
}

// walkError is the error of a walker, by value: a walker doesn't allocate unless
// it is asked for the error.
type walkError struct {
	offset         int
	field, problem string
}

// set notes the error, and returns false for Next to return.
func (e *walkError) set(offset int, field, problem string) bool {
	*e = walkError{offset, field, problem}
	return false
}

func (e *walkError) err() error {
	if e.problem == "" {
		return nil
	}
	return &ParseError{Offset: e.offset, Field: e.field, Problem: e.problem}
}
