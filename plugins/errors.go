package plugins

import "fmt"

// A FieldError says what is wrong with one field of a Deployment.
type FieldError struct {
	// Path leads to the field, such as sites[0].groups[1].listeners[0].address.
	Path string
	// Err says what is wrong.
	Err error
}

func (e *FieldError) Error() string { return e.Path + ": " + e.Err.Error() }

// Unwrap returns what is wrong.
func (e *FieldError) Unwrap() error { return e.Err }

// FieldErrors returns the field errors in err, in order, and err's other parts
// as field errors without a path.
func FieldErrors(err error) []*FieldError {
	switch e := err.(type) {
	case nil:
		return nil
	case *FieldError:
		return []*FieldError{e}
	case interface{ Unwrap() []error }:
		var all []*FieldError
		for _, err := range e.Unwrap() {
			all = append(all, FieldErrors(err)...)
		}
		return all
	}
	return []*FieldError{{Err: err}}
}

func index(path, list string, i int) string { return fmt.Sprintf("%s%s[%d]", path, list, i) }
