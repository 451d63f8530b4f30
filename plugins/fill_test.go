package plugins

import (
	"net/netip"
	"reflect"
	"strings"
	"testing"
)

// fill sets the field of that path, and what it takes to get there.
func fill(t *testing.T, to any, field string) {
	t.Helper()
	v := reflect.ValueOf(to).Elem()
	for name := range strings.SplitSeq(field, ".") {
		f, ok := fieldOf(v, name)
		if !ok {
			t.Fatalf("%s: there is no %s", field, name)
		}
		v = f
		for v.Kind() == reflect.Pointer || v.Kind() == reflect.Slice {
			if v.Kind() == reflect.Pointer {
				v.Set(reflect.New(v.Type().Elem()))
				v = v.Elem()
				continue
			}
			v.Set(reflect.MakeSlice(v.Type(), 1, 1))
			v = v.Index(0)
		}
	}
	switch v.Kind() {
	case reflect.String:
		v.SetString("x")
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Int, reflect.Int64:
		v.SetInt(7)
	case reflect.Uint32:
		v.SetUint(7)
	case reflect.Float64:
		v.SetFloat(7)
	case reflect.Map:
		v.Set(reflect.MakeMap(v.Type()))
	default:
		switch v.Type() {
		case reflect.TypeFor[netip.Addr]():
			v.Set(reflect.ValueOf(netip.MustParseAddr("10.0.0.1")))
		case reflect.TypeFor[netip.AddrPort]():
			v.Set(reflect.ValueOf(netip.MustParseAddrPort("10.0.0.1:1")))
		case reflect.TypeFor[netip.Prefix]():
			v.Set(reflect.ValueOf(netip.MustParsePrefix("10.0.0.0/8")))
		default:
			t.Fatalf("%s: no value of %v", field, v.Type())
		}
	}
}

func fieldOf(v reflect.Value, name string) (reflect.Value, bool) {
	for i := range v.NumField() {
		f := v.Type().Field(i)
		tag, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		if tag == name {
			return v.Field(i), true
		}
		if f.Anonymous && tag == "" {
			if inner, ok := fieldOf(v.Field(i), name); ok {
				return inner, true
			}
		}
	}
	return reflect.Value{}, false
}
