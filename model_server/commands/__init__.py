"""The commands of `edgeship-server`: `local` ones work on the server's folder, `remote` ones speak HTTP."""
