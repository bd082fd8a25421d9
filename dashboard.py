from gebm_lightning.cli.dashboard import main

if __name__ == "__main__":
    main()
