package rules

import (
	"cmp"
	"fmt"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/apiserver/identity"
	"github.com/caravanserai/cara/apiserver/state"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// PasswordList returns the users of a Secret of type basicAuth. If it cannot be used, it returns what is wrong with the Secret and
// what to do, without any part of its value.
func PasswordList(r state.Reader, vault *identity.Vault, name string) (list *carav1.PasswordList, problem string) {
	const create = "caractrl create secret %s --type %s --from-file users=FILE"
	stored, ok := state.Get[*carav1.Secret](r, name)
	if !ok {
		return nil, fmt.Sprintf("does not exist; create it: "+create, name, api.SecretBasicAuth)
	}
	if stored.GetType() != api.SecretBasicAuth {
		return nil, fmt.Sprintf("has the type %s and must have the type %s; name another Secret, or delete this one and create it again: "+create,
			cmp.Or(stored.GetType(), api.SecretOpaque), api.SecretBasicAuth, name, api.SecretBasicAuth)
	}
	text, err := SecretValue(vault, stored, api.BasicAuthUsers)
	if err != nil {
		return nil, "cannot be opened; set it again"
	}
	users, err := api.ParseUsers(text)
	if err != nil { // an older server stored it without a check
		return nil, fmt.Sprintf("cannot be used for passwords: %v; then set the Secret again", err)
	}
	return &carav1.PasswordList{Id: name, Users: users}, ""
}
