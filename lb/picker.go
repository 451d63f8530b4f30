package lb

// A Picker chooses a backend for a client that is new. It chooses among
// v.Ready, which the Pool has already narrowed to what may take new clients:
// up, and of the active priority. It must not retain v, block or allocate.
type Picker interface {
	// Pick returns one of v.Ready, or nil if there is none to be had.
	Pick(k Key, v *View) *Member
}

// PickerFunc is a function as a Picker.
type PickerFunc func(k Key, v *View) *Member

// Pick calls f.
func (f PickerFunc) Pick(k Key, v *View) *Member { return f(k, v) }
