// Package pluginsv1 is the contract of drivers as protobuf and gRPC, and its
// generated code. driver.proto is for plugins in every language; programs in Go
// use package wire, which turns it into a plugins.Driver, and package sdk.
package pluginsv1
