// Package sdk turns a [plugins.Driver] into a plugin: a program of its own that
// others start and speak with over gRPC. All of such a program is
//
//	func main() { sdk.Serve(&mybox.Driver{Logger: sdk.Logger()}) }
//
// It is named aovlb-plugin-NAME, and found by package host. docs/plugins.md says
// how a driver is written; aovlb plugin new NAME writes the beginning of one.
package sdk
