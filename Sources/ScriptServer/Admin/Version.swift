// The version of the product. Must never know anything.

/// The version that `moonport --version` and `status` show.
package enum Version {
  package static let text = "0.1.0"
}
