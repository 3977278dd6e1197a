package main

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"causeway/crypto/pki"
)

func pkiRequestCommand() *cobra.Command {
	var name, out, keyType string
	var router bool
	cmd := &cobra.Command{
		Use:   "request --name NAME --out DIR",
		Short: "On a node: make its key, and a request for the authority",
		Long: `Make a key and a certificate request in an identity directory. The key,
node.key, stays there; the request, node.csr, goes to the domain's authority,
who runs causeway pki issue --ca DIR --csr node.csr, or, for a router,
causeway pki grant. It holds the name and proves that its maker has the key;
address, validity and rights are the authority's to decide.

  causeway pki request --name billing-1 --out billing-1
  causeway pki request --router --name edge-1 --out edge-1`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := required(cmd, "name", "out"); err != nil {
				return err
			}
			if err := pki.CheckName(name); err != nil {
				return usageError{fmt.Errorf("--name: %w", err)}
			}
			kind, err := checkKeyType(keyType)
			if err != nil {
				return err
			}
			role, verb := pki.RoleNode, "issue"
			if router {
				role, verb = pki.RoleRouter, "grant"
			}
			if err := makeRequest(out, name, role, kind); err != nil {
				return err
			}
			csr := filepath.Join(out, pki.FileCSR)
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "made %s, which stays here, and %s\nnext, on the authority: causeway pki %s --ca DIR --csr %s\n",
				filepath.Join(out, pki.FileKey), csr, verb, csr)
			return err
		},
	}
	fl := cmd.Flags()
	fl.StringVar(&name, "name", "", "`NAME` within the domain, such as billing-1 (required)")
	fl.StringVar(&out, "out", "", "identity `DIR` to make, or to add key and request to (required)")
	fl.BoolVar(&router, "router", false, "ask for a router's grant")
	addKeyType(fl, &keyType)
	return cmd
}

func makeRequest(dir, name string, role pki.Role, kind pki.KeyType) error {
	const remedy = "use that one, or give another --out"
	for _, file := range []string{pki.FileKey, pki.FileCSR} {
		if err := absent(filepath.Join(dir, file), remedy); err != nil {
			return err
		}
	}
	key, err := pki.NewKey(kind, pkiRandom)
	if err != nil {
		return err
	}
	keyText, err := pki.EncodeKey(key)
	if err != nil {
		return err
	}
	der, err := pki.CreateRequest(name, role, key, pkiRandom)
	if err != nil {
		return err
	}
	if vacant(dir, "") == nil {
		files := map[string]newFile{pki.FileKey: {keyText, modeSecret}, pki.FileCSR: {pki.EncodeRequest(der), modePublic}}
		if role == pki.RoleRouter {
			files[pki.DirGrants] = newFile{}
		}
		return writeNewDir(dir, files, remedy)
	}
	if err := writeNew(filepath.Join(dir, pki.FileKey), keyText, modeSecret, remedy); err != nil {
		return err
	}
	if err := writeNew(filepath.Join(dir, pki.FileCSR), pki.EncodeRequest(der), modePublic, remedy); err != nil {
		os.Remove(filepath.Join(dir, pki.FileKey)) // made above, of no use alone
		return err
	}
	return nil
}
