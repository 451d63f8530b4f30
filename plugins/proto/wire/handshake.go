package wire

// How a plugin's program and its host find each other, by HashiCorp's go-plugin.
// docs/plugins.md says the same for other languages.
const (
	// Version is that of the contract: of the package of driver.proto.
	Version = 1
	// CookieKey and CookieValue are an environment variable by which a program
	// knows that it was started as a plugin. They keep nothing secret.
	CookieKey   = "AOVLB_PLUGIN"
	CookieValue = "b9b1f1f2-9b7c-4d1c-8f5e-6b8f2c1f0a77"
	// Name is what the one service of a plugin is dispensed as.
	Name = "driver"
	// ParentKey is an environment variable with the number of a descriptor
	// that is open for reading as long as the host lives. At its end a plugin
	// removes DirKey and exits, whatever it does.
	ParentKey = "AOVLB_PLUGIN_PARENT_FD"
	// DirKey is an environment variable with a folder for the plugin alone,
	// where its socket is. Its name begins with DirPrefix.
	DirKey    = "AOVLB_PLUGIN_DIR"
	DirPrefix = "aovlb-plugin-"
)
