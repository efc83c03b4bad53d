package sops

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/sha512"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"hash"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/caravanserai/cara/api"
)

// form is the text of an encrypted value.
var form = regexp.MustCompile(`^ENC\[AES256_GCM,data:(.+),iv:(.+),tag:(.+),type:(.+)\]$`)

const (
	errValue  = "this value cannot be decrypted: it was changed or moved after the file was encrypted; restore the file, or encrypt it again"
	errPlain  = "this value must be encrypted by the rules in the sops block, and is not; encrypt the file again"
	errStrays = "this value is encrypted, but the rules in the sops block say that it is not; encrypt the file again"
	errMAC    = "its MAC does not match: values were changed, added or removed after it was encrypted; restore the file, or edit it with `sops edit`"
)

// Decrypt replaces the encrypted values of the documents of a file, and removes their sops blocks. The first document must have one.
// After an error, the documents are of no use.
func (k *Keys) Decrypt(roots []*yaml.Node) *Error {
	first := Find(roots[0])
	m, err := read(first)
	if err != nil {
		return at(first, err)
	}
	modified, err := m.modified()
	if err != nil {
		return at(first, err)
	}
	key, err := k.dataKey(m.Age)
	if err != nil {
		return at(first, err)
	}
	f := &file{metadata: &m, key: key, mac: sha512.New()}
	if m.MACOnlyEncrypted {
		f.mac.Write(onlyEncrypted())
	}
	for _, root := range roots {
		if Find(root) == nil {
			return at(root, errors.New("this document has no sops block, but others in its file have; encrypt the file again as a whole"))
		}
		remove(root)
		if err := f.walk(root, nil); err != nil {
			return err
		}
	}
	want, _, err := open(key, m.MAC, modified)
	if err != nil || subtle.ConstantTimeCompare(want, fmt.Appendf(nil, "%X", f.mac.Sum(nil))) != 1 {
		return at(first, errors.New(errMAC))
	}
	return nil
}

// onlyEncrypted is the prefix of a MAC that covers encrypted values only. SOPS defines these bytes.
func onlyEncrypted() []byte {
	return []byte{
		0x8a, 0x3f, 0xd2, 0xad, 0x54, 0xce, 0x66, 0x52, 0x7b, 0x10, 0x34, 0xf3, 0xd1, 0x47, 0xbe, 0x0b,
		0x0b, 0x97, 0x5b, 0x3b, 0xf4, 0x4f, 0x72, 0xc6, 0xfd, 0xad, 0xec, 0x81, 0x76, 0xf2, 0x7d, 0x69,
	}
}

// file holds the state of one call of Decrypt.
type file struct {
	*metadata
	key []byte
	mac hash.Hash
}

// walk decrypts the values below a node, which path leads to. Lists add nothing to a path.
func (f *file) walk(n *yaml.Node, path []string) *Error {
	switch n.Kind {
	case yaml.MappingNode:
		for i := 0; i+1 < len(n.Content); i += 2 {
			if n.Content[i].Kind != yaml.ScalarNode {
				return at(n.Content[i], errors.New("a key must be a text"))
			}
			if err := f.walk(n.Content[i+1], append(slices.Clip(path), n.Content[i].Value)); err != nil {
				return err
			}
		}
		return nil
	case yaml.SequenceNode:
		return f.list(n, path)
	case yaml.ScalarNode:
		return f.scalar(n, path)
	default:
		return at(n, errors.New("an encrypted file must have no alias; write the value out and encrypt the file again"))
	}
}

// list decrypts the values of a list. SOPS makes an item of each comment in a list; these are dropped.
func (f *file) list(n *yaml.Node, path []string) *Error {
	var items []*yaml.Node
	for _, item := range n.Content {
		if err := f.walk(item, path); err != nil {
			return err
		}
		if item.Tag != tagNote {
			items = append(items, item)
		}
	}
	n.Content = items
	return nil
}

// tagNote marks a value that SOPS has made of a comment.
const tagNote = "!sops-comment"

// scalar decrypts one value and adds it to the MAC.
func (f *file) scalar(n *yaml.Node, path []string) *Error {
	if n.ShortTag() == "!!null" {
		return nil
	}
	covered := f.covers(path)
	switch {
	case covered && n.Value == "": // SOPS leaves empty texts as they are
	case covered && !strings.HasPrefix(n.Value, api.SOPSValue):
		return at(n, errors.New(errPlain))
	case covered:
		plain, typ, err := open(f.key, n.Value, strings.Join(path, ":")+":")
		if err == nil {
			err = replace(n, plain, typ)
		}
		if err != nil {
			return at(n, errors.New(errValue))
		}
		if n.Tag == tagNote {
			return nil // the MAC does not cover comments
		}
		f.mac.Write(plain)
		return nil
	case strings.HasPrefix(n.Value, api.SOPSValue):
		return at(n, errors.New(errStrays))
	}
	if covered || !f.MACOnlyEncrypted {
		plain, err := plainBytes(n)
		if err != nil {
			return at(n, err)
		}
		f.mac.Write(plain)
	}
	return nil
}

// open decrypts one value of the form that SOPS writes.
func open(key []byte, value, additional string) (plain []byte, typ string, err error) {
	parts := form.FindStringSubmatch(value)
	if parts == nil {
		return nil, "", errors.New("not of the form ENC[...]")
	}
	var raw [3][]byte
	for i := range raw {
		if raw[i], err = base64.StdEncoding.DecodeString(parts[i+1]); err != nil {
			return nil, "", errors.New("not base64")
		}
	}
	data, nonce, tag := raw[0], raw[1], raw[2]
	if len(nonce) == 0 || len(nonce) > 64 {
		return nil, "", errors.New("a nonce of a wrong length")
	}
	cipherBlock, err := aes.NewCipher(key)
	if err != nil {
		return nil, "", err
	}
	gcm, err := cipher.NewGCMWithNonceSize(cipherBlock, len(nonce))
	if err != nil {
		return nil, "", err
	}
	plain, err = gcm.Open(nil, nonce, append(data, tag...), []byte(additional))
	return plain, parts[4], err
}

// replace makes a node the plain value of a type of SOPS.
func replace(n *yaml.Node, plain []byte, typ string) error {
	n.Style, n.Value = 0, string(plain)
	switch typ {
	case "str":
		n.Style, n.Tag = yaml.DoubleQuotedStyle, "!!str"
	case "int":
		n.Tag = "!!int"
	case "float":
		n.Tag = "!!float"
	case "bool":
		n.Tag, n.Value = "!!bool", strings.ToLower(n.Value)
	case "bytes":
		n.Style, n.Tag, n.Value = yaml.DoubleQuotedStyle, "!!str", base64.StdEncoding.EncodeToString(plain)
	case "comment":
		n.Tag = tagNote
	case "time":
		n.Tag = "!!timestamp"
	default:
		return errors.New("unknown type")
	}
	return nil
}

// plainBytes returns what SOPS adds to a MAC for a value that is not encrypted.
func plainBytes(n *yaml.Node) ([]byte, error) {
	var v any
	if err := n.Decode(&v); err != nil {
		return nil, errors.New("this value cannot be read")
	}
	switch v := v.(type) {
	case string:
		return []byte(v), nil
	case int:
		return []byte(strconv.Itoa(v)), nil
	case float64:
		return []byte(strconv.FormatFloat(v, 'f', -1, 64)), nil
	case bool:
		if v {
			return []byte("True"), nil
		}
		return []byte("False"), nil
	case time.Time:
		return v.MarshalText()
	}
	return nil, errors.New("this value has a type that sops does not encrypt")
}

// remove removes the sops block of a document.
func remove(root *yaml.Node) {
	for i := 0; i+1 < len(root.Content); i += 2 {
		if root.Content[i].Value == block {
			root.Content = append(root.Content[:i:i], root.Content[i+2:]...)
			return
		}
	}
}
