package profilexml

// A Type is what an element holds.
type Type uint8

const (
	// Group holds other elements.
	Group Type = iota
	// Text is any text.
	Text
	// Boolean is true or false, in small letters.
	Boolean
	// Number is a whole number from Least to Most.
	Number
	// Enumeration is one of Values.
	Enumeration
	// List is several texts, separated by Separator.
	List
	// Opaque is XML of somebody else, escaped into text.
	Opaque
)

var typeNames = [...]string{"group", "text", "boolean", "number", "enumeration", "list", "escaped XML"}

func (t Type) String() string { return typeNames[t] }

// MarshalText returns the name of the Type.
func (t Type) MarshalText() ([]byte, error) { return []byte(t.String()), nil }

// An Element is an entry of the content table: all that is known of an element
// of ProfileXML where it stands. The table drives reading, building, checking,
// formatting and the documentation.
type Element struct {
	// Name is the local name, and Space the namespace; only EAP has one.
	Name  string `json:"name"`
	Space string `json:"space,omitempty"`
	// Type is what it holds.
	Type Type `json:"type"`
	// Values are what an Enumeration can be, as Windows writes them.
	Values []string `json:"values,omitempty"`
	// Spellings are what others write in place of one of Values, such as
	// PowerShell's names.
	Spellings map[string]string `json:"spellings,omitempty"`
	// Separator stands between the items of a List.
	Separator string `json:"separator,omitempty"`
	// Least and Most bound a Number.
	Least uint64 `json:"least,omitempty"`
	Most  uint64 `json:"most,omitempty"`
	// Required says that its parent must have it.
	Required bool `json:"required,omitempty"`
	// Repeats says that its parent may have several.
	Repeats bool `json:"repeats,omitempty"`
	// Schema is its place among its siblings in the published XSD, from 1; 0 if
	// that doesn't have it. Its place when Windows reads a profile back is its
	// index among the Children of its parent.
	Schema int `json:"schema,omitempty"`
	// Since is the first Windows that has it in practice; 0 means all.
	Since Windows `json:"since,omitzero"`
	// Scope is set where only one scope has it.
	Scope Scope `json:"-"`
	// Default is what its absence means; empty if nobody says.
	Default string `json:"default,omitempty"`
	// About says what it does, and Trap what goes wrong with it.
	About string `json:"about"`
	Trap  string `json:"trap,omitempty"`
	// Attrs are the attributes it may have.
	Attrs []string `json:"attributes,omitempty"`
	// Children are the elements in a Group, in the order of reading back.
	Children []*Element `json:"children,omitempty"`

	parent  *Element
	path    string
	index   int // among the children of its parent
	ordinal int // in the whole table
	byName  map[string][]*Element
}

// Path returns the names from the root on, such as VPNProfile/Route/Address.
func (e *Element) Path() string { return e.path }

// child returns what may stand in e by that name, preferring that namespace.
func (e *Element) child(local, space string) *Element {
	if e == nil {
		return nil
	}
	list := e.byName[local]
	for _, c := range list {
		if c.Space == space {
			return c
		}
	}
	return nil
}

// Walk calls yield for e and for all in it, each before what it holds, until
// yield returns false.
func (e *Element) Walk(yield func(*Element) bool) { e.walk(yield) }

func (e *Element) walk(yield func(*Element) bool) bool {
	if !yield(e) {
		return false
	}
	for _, c := range e.Children {
		if !c.walk(yield) {
			return false
		}
	}
	return true
}

// link prepares e and all in it for lookups.
func (e *Element) link() *Element {
	e.path = e.Name
	e.linkChildren()
	ordinal := 0
	for x := range e.Walk {
		x.ordinal = ordinal
		ordinal++
	}
	return e
}

func (e *Element) linkChildren() {
	e.byName = make(map[string][]*Element, len(e.Children))
	for i, c := range e.Children {
		c.parent, c.index, c.path = e, i, e.path+"/"+c.Name
		e.byName[c.Name] = append(e.byName[c.Name], c)
		c.linkChildren()
	}
}

// Content returns the content table: the element VPNProfile with all that can be
// in it. It is the caller's own.
func Content() *Element { return newContent().link() }

// contentTable is what this package reads with; nobody changes it.
var contentTable = Content()

// byLocalName are all elements outside EAP by name.
var byLocalName = indexNames()

func indexNames() map[string][]*Element {
	names := map[string][]*Element{}
	for e := range contentTable.Walk {
		if e.Space != "" {
			continue
		}
		names[e.Name] = append(names[e.Name], e)
	}
	return names
}
