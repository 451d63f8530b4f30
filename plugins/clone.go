package plugins

import (
	"net/netip"
	"reflect"
	"slices"
)

// Clone returns a copy of d that shares nothing with it.
func (d *Deployment) Clone() *Deployment {
	if d == nil {
		return nil
	}
	out := new(Deployment)
	deepCopy(reflect.ValueOf(out).Elem(), reflect.ValueOf(*d))
	return out
}

// deepCopy copies plain data: structs, pointers, slices and maps.
func deepCopy(to, from reflect.Value) {
	switch from.Kind() {
	case reflect.Pointer:
		if !from.IsNil() {
			to.Set(reflect.New(from.Type().Elem()))
			deepCopy(to.Elem(), from.Elem())
		}
	case reflect.Slice:
		if !from.IsNil() {
			to.Set(reflect.MakeSlice(from.Type(), from.Len(), from.Len()))
			for i := range from.Len() {
				deepCopy(to.Index(i), from.Index(i))
			}
		}
	case reflect.Map:
		if !from.IsNil() {
			to.Set(reflect.MakeMapWithSize(from.Type(), from.Len()))
			for _, k := range from.MapKeys() {
				v := reflect.New(from.Type().Elem()).Elem()
				deepCopy(v, from.MapIndex(k))
				to.SetMapIndex(k, v)
			}
		}
	case reflect.Struct:
		if slices.Contains([]reflect.Type{reflect.TypeFor[netip.Addr](), reflect.TypeFor[netip.AddrPort](), reflect.TypeFor[netip.Prefix]()}, from.Type()) {
			to.Set(from)
			return
		}
		for i := range from.NumField() {
			deepCopy(to.Field(i), from.Field(i))
		}
	default:
		to.Set(from)
	}
}
